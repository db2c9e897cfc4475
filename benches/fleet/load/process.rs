//! Processes that end with their values, and a mosquitto that listens.

use super::Outcome;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child that does not outlive its value.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = std::fs::File::create(log)?;
        let started = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(started.map_err(|cause| format!("{:?}: {cause}", command.get_program()))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end by `signal`, and waits.
    pub(crate) fn end(&mut self, signal: &str) -> Outcome<()> {
        Command::new("kill").args([signal, &self.0.id().to_string()]).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A mosquitto with this configuration, once it listens on `port`; its log lies beside.
pub(crate) fn mosquitto(config: &Path, port: u16) -> Outcome<Process> {
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
    let program = program.into_iter().find(|path| Path::new(path).exists()).ok_or("mosquitto is not installed")?;
    let process = Process::start(Command::new(program).arg("-c").arg(config), &config.with_extension("log"))?;
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err(format!("mosquitto does not listen; see {}", config.with_extension("log").display()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}
