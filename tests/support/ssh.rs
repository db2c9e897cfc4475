//! A real sshd on loopback, with keys, configuration and port of its own; and a client's configuration for it.

use super::{Process, free_port, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the file. Who logs in is the user that runs the tests.
pub(crate) struct Sshd {
    pub port: u16,
    pub dir: PathBuf,
    process: Process,
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    OpenSsh,
    Dropbear,
}

impl Sshd {
    /// An OpenSSH server; `options` stand before the key in `authorized_keys`. `varved` is in the PATH of who logs in.
    pub fn start(dir: &Path, options: &str) -> Self {
        Self::with(Server::OpenSsh, dir, options, Path::new(super::VARVED).parent().unwrap())
    }

    /// The same with another server, or another folder in the PATH.
    pub fn with(server: Server, dir: &Path, options: &str, path: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        for name in ["key", "other"] {
            let out =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)).output();
            assert!(out.expect("ssh-keygen; tests/run installs it").status.success());
        }
        let public = std::fs::read_to_string(dir.join("key.pub")).unwrap();
        std::fs::write(dir.join("authorized_keys"), format!("{options} {public}").trim_start()).unwrap();
        let port = free_port();
        let mut command = match server {
            Server::OpenSsh => openssh(dir, port, path),
            Server::Dropbear => dropbear(dir, port),
        };
        let process = Process::start(&mut command, &dir.join("sshd.log"));
        wait_for("sshd to listen", 10, || TcpStream::connect(("127.0.0.1", port)).ok());
        let sshd = Self { port, dir: dir.to_owned(), process };
        sshd.configure("board", port);
        sshd
    }

    /// Names a host of the client's configuration: this server, reached at `port`.
    pub fn configure(&self, host: &str, port: u16) {
        self.configure_with(host, port, "key", "known_hosts");
    }

    /// The same with one of the keys, and a file of known hosts.
    pub fn configure_with(&self, host: &str, port: u16, key: &str, known: &str) {
        let dir = self.dir.display();
        let text = format!(
            "Host {host}\n HostName 127.0.0.1\n Port {port}\n User {}\n IdentityFile {dir}/{key}\n IdentitiesOnly yes\n \
             UserKnownHostsFile {dir}/{known}\n GlobalKnownHostsFile none\n StrictHostKeyChecking accept-new\n BatchMode yes\n",
            user()
        );
        let path = self.dir.join("config");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, before + &text).unwrap();
    }

    /// What `varved pull --ssh` is given.
    pub fn client(&self) -> String {
        format!("ssh -F {}", self.dir.join("config").display())
    }

    pub fn log(&self) -> String {
        self.process.log_text()
    }
}

/// Who runs the tests.
fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn openssh(dir: &Path, port: u16, path: &Path) -> Command {
    let out = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("host")).output();
    assert!(out.unwrap().status.success());
    // Where it is root it wants this folder, which a boot makes.
    let _ = std::fs::create_dir_all("/run/sshd");
    let d = dir.display();
    let text = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {d}/host\nPidFile {d}/sshd.pid\nAuthorizedKeysFile {d}/authorized_keys\n\
         StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         Subsystem sftp internal-sftp\nSetEnv PATH={}:/usr/bin:/bin\n",
        path.display()
    );
    std::fs::write(dir.join("sshd_config"), text).unwrap();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    command
}

/// It reads `~/.ssh/authorized_keys` and nothing else, so it is given one of its own in a name space of its own.
fn dropbear(dir: &Path, port: u16) -> Command {
    let out = Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(dir.join("dropbear_host")).output();
    assert!(out.expect("dropbearkey; tests/run installs it").status.success());
    let d = dir.display();
    let script = format!(
        "home=$(getent passwd \"$(id -un)\" | cut -d: -f6) && mkdir -p \"$home/.ssh\" && mount -t tmpfs -o mode=700 tmpfs \"$home/.ssh\" \
         && cp {d}/authorized_keys \"$home/.ssh/authorized_keys\" && chmod 600 \"$home/.ssh/authorized_keys\" \
         && exec dropbear -F -E -s -p 127.0.0.1:{port} -r {d}/dropbear_host -P {d}/dropbear.pid"
    );
    let mut command = Command::new("unshare");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["--mount", "sh", "-c", &script]);
    command
}
