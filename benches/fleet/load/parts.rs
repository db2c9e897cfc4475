//! The processes: a mosquitto and a receiver. Each ends with its value.

use super::process::{Process, free_port, mosquitto};
use super::{Outcome, Plan};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mosquitto on loopback.
pub(crate) struct Broker {
    /// Where it listens.
    pub port: u16,
    process: Process,
}

impl Broker {
    /// With the settings that `docs/fleet.md` asks for, but for `max_inflight_messages`.
    pub(crate) fn start(dir: &Path, inflight: u32) -> Outcome<Self> {
        let port = free_port()?;
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n\
             max_inflight_messages {inflight}\nmax_queued_messages 100000\nset_tcp_nodelay true\n"
        );
        std::fs::write(&config, text)?;
        let process = mosquitto(&config, port)?;
        Ok(Self { port, process })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// `varved-fleet run`.
pub(crate) struct Receiver {
    process: Process,
    program: PathBuf,
    config: PathBuf,
    dir: PathBuf,
}

impl Receiver {
    pub(crate) fn start(plan: &Plan, dir: &Path, broker: u16) -> Outcome<Self> {
        let config = dir.join("fleet.toml");
        let text = format!("[fleet]\ndata = \"{}/data\"\nbroker = \"mqtt://127.0.0.1:{broker}\"\n", dir.display());
        std::fs::write(&config, text)?;
        let mut command = Command::new(&plan.receiver);
        command.args(["run", "--config"]).arg(&config);
        let process = Process::start(&mut command, &dir.join("fleet.log"))?;
        Ok(Self { process, program: plan.receiver.clone(), config, dir: dir.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops it and counts the readings in all replicas, with the program's own account.
    pub(crate) fn stop_and_count(mut self) -> Outcome<u64> {
        self.process.end("-TERM")?;
        let out = Command::new(&self.program).args(["devices", "--json", "--config"]).arg(&self.config).output()?;
        let devices: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let stores = devices.as_array().into_iter().flatten().filter_map(|device| device["stores"].as_array());
        Ok(stores.flatten().filter_map(|store| store["readings"].as_u64()).sum())
    }

    /// `fsync` and `fdatasync` calls within `time`, by strace.
    pub(crate) fn count_syncs(&self, time: Duration) -> Outcome<u64> {
        let trace = self.dir.join("syncs");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
            .arg(&trace)
            .args(["-p", &self.pid().to_string()]);
        let mut strace = Process::start(&mut strace, &self.dir.join("strace.log"))?;
        std::thread::sleep(time);
        strace.end("-INT")?;
        // A call that another thread's interrupts has a second line when it goes on.
        Ok(std::fs::read_to_string(&trace)?.lines().filter(|line| !line.contains("resumed>")).count() as u64)
    }
}
