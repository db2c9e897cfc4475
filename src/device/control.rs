//! The control socket: one JSON object a line in, one a line out. For the commands of this machine's owner and group.
//!
//! ```text
//! {"ask":"status"}            → {"ok":{…}}                          what `varved status --json` prints
//! {"ask":"flush"}             → {"ok":null}                         once everything that had arrived is on flash
//! {"ask":"query","sql":"…"}   → {"ok":{"columns":[…],"rows":[[…]]}}  for exclusive locking, where no other process can read
//!                             ↘ {"error":{"exit":75,"text":"…"}}
//! ```
//!
//! A fixed number of workers serve it, one client each at a time; a client that does not read, or does not ask, is hung up
//! on, so that it can't keep a worker.

use crate::sensor::{SocketFile, bind_unix};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use smol::Async;
use smol::future::FutureExt;
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use std::future::Future;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Clients served at once.
pub const WORKERS: usize = 4;

/// The longest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// A client that asks nothing, or does not read its answer, for this long is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Request {
    /// What the device knows of itself.
    Status,
    /// Commit what has arrived.
    Flush,
    /// Read-only SQL over the store.
    Query {
        /// One statement.
        sql: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was asked for.
    Ok(Json),
    /// Why not, and the exit code of the command that asked.
    Error {
        /// One of [`crate::fault::Exit`].
        exit: u8,
        /// In words, with what to do.
        text: String,
    },
}

/// Between two tries to make the socket.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Makes the socket at `path`, for as long as it takes: a service that can't be asked still records.
pub async fn bind(path: &Path) -> (Async<UnixListener>, SocketFile) {
    let mut tries = 0_u32;
    loop {
        match bind_unix(path) {
            Ok(made) => {
                if tries > 0 {
                    log::info!("control: listening on {}", path.display());
                }
                return made;
            }
            // Once, and then every hour.
            Err(why) if tries % 720 == 0 => log::error!(
                "control: no socket, `varved status` and `flush` can't be answered; it is tried again: {why}; make its \
                 folder, owned by the user of the service, or set control.listen"
            ),
            Err(_) => {}
        }
        tries = tries.wrapping_add(1);
        smol::Timer::after(BIND_AGAIN).await;
    }
}

/// Serves one client after the other, for ever; [`WORKERS`] of these run on one listener.
pub async fn serve<F, A>(listener: &Async<UnixListener>, answer: F)
where
    F: Fn(Request) -> A,
    A: Future<Output = Answer>,
{
    loop {
        let served = async { talk(listener.accept().await?.0, &answer).await }.await;
        if let Err(why) = served {
            log::debug!("control: {why}");
            // An accept that fails at once (out of descriptors) must not spin.
            smol::Timer::after(Duration::from_millis(50)).await;
        }
    }
}

async fn talk<F, A>(client: Async<UnixStream>, answer: &F) -> io::Result<()>
where
    F: Fn(Request) -> A,
    A: Future<Output = Answer>,
{
    let mut reader = BufReader::new(&client);
    loop {
        let mut line = Vec::new();
        let read = async { (&mut reader).take(MAX_REQUEST_BYTES).read_until(b'\n', &mut line).await };
        if read.or(hung()).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => answer(request).await,
            Err(why) => Answer::Error { exit: 64, text: format!("{why}; ask {{\"ask\":\"status\"}}") },
        };
        let mut bytes = serde_json::to_vec(&reply).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let mut writer = &client;
        async { writer.write_all(&bytes).await }.or(hung()).await?;
        if !line.ends_with(b"\n") {
            return Ok(());
        }
    }
}

async fn hung<T>() -> io::Result<T> {
    smol::Timer::after(PATIENCE).await;
    Err(io::Error::new(io::ErrorKind::TimedOut, "a client neither asked nor read; hung up on it"))
}

/// Asks a running service, from another process. Waits for the answer as long as it takes: a flush waits for the flash.
///
/// # Errors
/// Those of the socket; `NotFound` and `ConnectionRefused` mean that no service runs there.
pub fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    use std::io::{BufRead, Write};
    let mut stream = UnixStream::connect(socket)?;
    let mut bytes = serde_json::to_vec(request).map_err(io::Error::other)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut line = String::new();
    if std::io::BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the service hung up before it answered"));
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo(request: Request) -> Answer {
        match request {
            Request::Status => Answer::Ok(Json::from(1)),
            Request::Flush => Answer::Ok(Json::Null),
            Request::Query { sql } => Answer::Error { exit: 65, text: sql },
        }
    }

    fn served<T: Send + 'static>(client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("control.sock");
        let listener = Async::<UnixListener>::bind(&path).expect("a socket");
        let asked = smol::unblock(move || client(&path));
        smol::block_on(async {
            asked
                .or(async {
                    serve(&listener, echo).await;
                    unreachable!()
                })
                .await
        })
    }

    /// Each request has its answer, also several on one connection, and nonsense is answered with what to ask instead.
    #[test]
    fn requests_are_answered_in_order() {
        let answers = served(|path| {
            [Request::Status, Request::Flush, Request::Query { sql: "x".into() }]
                .map(|r| ask(path, &r).expect("an answer"))
        });
        assert_eq!(answers[0], Answer::Ok(Json::from(1)));
        assert_eq!(answers[2], Answer::Error { exit: 65, text: "x".into() });
        let text = served(|path| {
            use std::io::{Read, Write};
            let mut stream = UnixStream::connect(path).expect("a client");
            stream.write_all(b"{\"ask\":\"status\"}\nnonsense\n").expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("shut");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("answers");
            text
        });
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\"exit\":64"), "{text}");
    }

    /// A request without an end is cut off at the limit, not collected for ever.
    #[test]
    fn an_endless_request_is_cut_off() {
        let answer = served(|path| {
            use std::io::{BufRead, Write};
            let mut stream = UnixStream::connect(path).expect("a client");
            let _ = stream.write_all(&vec![b'x'; 256 * 1024]);
            let mut line = String::new();
            std::io::BufReader::new(stream).read_line(&mut line).map(|_| line)
        });
        assert!(answer.is_err() || answer.is_ok_and(|line| line.is_empty() || line.contains("error")));
    }
}
