//! An emulated machine, started through `imager run`, which alone knows QEMU's command line.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use boot_core::Architecture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::console::Console;
use crate::cuts::log::Log;
use crate::cuts::loss::{self, Loss};
use crate::disk::Disk;
use crate::qmp::Qmp;
use crate::scenario::Context;
use crate::ssh::Ssh;

/// First words of the loader on every start: what counts boots.
pub const LOADER_STARTS: &str = "sternpost: loader";

/// The file of a run that keeps the firmware's variables.
pub const VARIABLES: &str = "firmware-variables.fd";

/// The files of a run that keep what a recorded machine writes, and its disk as it was before.
pub(crate) const WRITES: &str = "writes.recorded";
pub(crate) const BEFORE: &str = "before.raw";

/// How long QEMU may take until it runs.
const START: Duration = Duration::from_secs(120);

/// How long one login may take. On a busy host an emulated machine takes a minute and more for keys, session and shell,
/// and one that is ended before is begun anew, with more to do than before.
const LOGIN: Duration = Duration::from_secs(180);

/// What is kept of a login that did not succeed.
const NO_LOGIN: &str = "no-login.log";

/// What a machine is made of, beside its disks.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the disks hang on, as `imager run --bus` names it.
    pub bus: &'static str,
    /// MiB of memory.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// A hardware watchdog that resets the machine.
    pub watchdog: bool,
    /// Where the writes and flushes of the first disk are recorded.
    pub record: Option<PathBuf>,
    /// Passed to QEMU as they are.
    pub extra: Vec<String>,
}

impl Options {
    /// What starts such a machine, up to what is another one at each start.
    pub(crate) fn command(&self, context: &Context, disk: &Path, sector_size: u32) -> Command {
        let mut command = Command::new(context.artefacts().imager());
        command.arg("run").arg(disk);
        command
            .arg("--arch")
            .arg(context.scenario().architecture.name());
        command.arg("--firmware-vars").arg(context.file(VARIABLES));
        command
            .args(["--bus", self.bus])
            .args(["--sector-size", &sector_size.to_string()])
            .args(["--memory", &self.memory.to_string()])
            .args(["--cpus", &self.cpus.to_string()]);
        if self.watchdog {
            command.arg("--watchdog");
        }
        command
    }
}

impl Options {
    /// The usual, with what the first disk is asked to write recorded, so that [`Machine::lose_power`] can lose it.
    #[must_use]
    pub fn recorded() -> Options {
        Options {
            record: Some(PathBuf::new()),
            ..Options::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bus: "virtio",
            memory: 1024,
            cpus: 2,
            watchdog: false,
            record: None,
            extra: Vec::new(),
        }
    }
}

/// A running machine. Dropping it cuts its power.
pub struct Machine<'c> {
    pub(crate) context: &'c Context,
    child: Child,
    console: Console,
    ssh: Ssh,
    qmp: PathBuf,
    /// The serial console's other end, for typing.
    keyboard: PathBuf,
}

impl<'c> Machine<'c> {
    /// Starts a machine with these disks, the first of which it boots from. Its firmware variables outlive it within
    /// one scenario, as a board's do.
    ///
    /// # Errors
    /// `imager run` cannot be started.
    pub fn start(context: &'c Context, disks: &[&Disk], options: Options) -> Result<Machine<'c>> {
        let (first, others) = disks
            .split_first()
            .ok_or_else(|| anyhow!("a machine needs a disk"))?;
        let log = free_name(context, "console");
        // Short names: a socket's path has at most 107 bytes.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = |kind| {
            std::env::temp_dir().join(format!("sternpost-{}-{number}.{kind}", std::process::id()))
        };
        let (qmp, keyboard) = (socket("qmp"), socket("tty"));
        let mut command = options.command(context, first.path(), first.sector_size());
        for disk in others {
            command.arg("--disk").arg(disk.path());
        }
        command
            .arg("--serial")
            .arg(&log)
            .arg("--serial-socket")
            .arg(&keyboard)
            .arg("--qmp")
            .arg(&qmp)
            // Any that is free.
            .args(["--ssh", "0"]);
        if let Some(log) = &options.record {
            command.arg("--record-writes").arg(log);
        }
        if !options.extra.is_empty() {
            command.arg("--").args(&options.extra);
        }
        let output = std::fs::File::create(context.file("imager-run.log"))
            .context("cannot write imager's log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own, so that whatever imager starts ends with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut machine = Machine {
            context,
            child,
            console: Console::new(&log),
            ssh: context.artefacts().ssh(0),
            qmp,
            keyboard,
        };
        machine.ssh = context.artefacts().ssh(machine.ssh_port()?);
        Ok(machine)
    }

    /// The port of the host that leads to the machine's SSH: QEMU has taken one that was free.
    fn ssh_port(&mut self) -> Result<u16> {
        let deadline = Instant::now() + START;
        // The socket is there a moment before QEMU listens to it.
        let mut qmp = loop {
            match self.qmp() {
                Ok(qmp) => break qmp,
                Err(error) if Instant::now() >= deadline => return Err(self.explain(error)),
                Err(_) if matches!(self.child.try_wait(), Ok(None)) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) => return Err(self.explain(anyhow!("QEMU did not start"))),
            }
        };
        let said = qmp.monitor("info usernet")?;
        forwarded_port(&said).with_context(|| format!("QEMU forwards no port to SSH: {said}"))
    }

    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.context.scenario().architecture
    }

    /// Its console log.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Waits for a line on the console; gives the line. Waits go forward only.
    ///
    /// # Errors
    /// It does not come in time, or the machine ends.
    pub fn wait_for_line(&mut self, pattern: &str, limit: Duration) -> Result<String> {
        self.wait_for_any(&[pattern], limit)
    }

    /// Waits for a line on the console that contains one of `patterns`.
    ///
    /// # Errors
    /// None comes in time, or the machine ends.
    pub fn wait_for_any(&mut self, patterns: &[&str], limit: Duration) -> Result<String> {
        let limit = self.context.patience(limit)?;
        let child = &mut self.child;
        let result = self.console.wait_for(patterns, limit, &mut || {
            matches!(child.try_wait(), Ok(None))
        });
        result.map_err(|error| self.explain(error))
    }

    /// Waits until the loader starts once more: the machine has been reset.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_boot(&mut self, limit: Duration) -> Result<()> {
        self.wait_for_line(LOADER_STARTS, limit)?;
        Ok(())
    }

    /// Waits until commands can be run inside.
    ///
    /// # Errors
    /// They cannot in time, or the machine ends. What there is to see of why is in the error, and in a file of the run.
    pub fn wait_for_ssh(&mut self, limit: Duration) -> Result<()> {
        let limit = self.context.patience(limit)?;
        let began = Instant::now();
        let mut tries = Vec::new();
        loop {
            let at = began.elapsed();
            let left = limit.saturating_sub(at).max(Duration::from_secs(10));
            let Err(error) = self.ssh.run("true", LOGIN.min(left)) else {
                return Ok(());
            };
            let (from, to) = (at.as_secs(), began.elapsed().as_secs());
            tries.push(format!("from {from} s to {to} s: {error:#}"));
            if !self.is_on() {
                let error = anyhow!("the machine ended before it could be logged into");
                return Err(self.explain(error));
            }
            if began.elapsed() >= limit {
                return Err(self.explain(self.no_login(limit, &tries)));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// That nobody could log in: what was tried, one more try that says what it does, what QEMU says of machine and
    /// network, and what the host was doing.
    fn no_login(&self, limit: Duration, tries: &[String]) -> anyhow::Error {
        let asked = |question: &str| {
            let answer = self.qmp().and_then(|mut qmp| qmp.monitor(question));
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            format!("{question}: {}", answer.trim_end())
        };
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let last = tries.last().map(String::as_str).unwrap_or_default();
        let seen = [
            last.to_owned(),
            asked("info status"),
            asked("info usernet"),
            format!("the host's load: {}", load.trim_end()),
        ]
        .join("\n");
        let aloud = match self.ssh.run_aloud("true", LOGIN / 2) {
            Ok(_) => "one more try succeeded".to_owned(),
            Err(error) => format!("one more try: {error:#}"),
        };
        let file = self.context.file(NO_LOGIN);
        // What cannot be kept is missing, and no reason to lose the rest.
        let _ = std::fs::write(&file, format!("{}\n{seen}\n{aloud}\n", tries.join("\n")));
        anyhow!(
            "no login over SSH within {} s, in {} tries (all of them: {}); the last one, {seen}",
            limit.as_secs(),
            tries.len(),
            file.display()
        )
    }

    /// Whether it runs.
    pub fn is_on(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs a command inside; gives what it printed.
    ///
    /// # Errors
    /// It fails, or takes longer than a minute.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, Duration::from_secs(60))
    }

    /// Runs a command inside that may take as long as `limit`.
    ///
    /// # Errors
    /// It fails, or takes longer.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let limit = self.context.patience(limit)?;
        self.ssh
            .run(command, limit)
            .map_err(|error| self.explain(error))
    }

    /// Starts a command inside and does not wait for it.
    ///
    /// # Errors
    /// ssh cannot be started.
    pub fn run_beside(&self, command: &str) -> Result<Child> {
        self.ssh.spawn(command)
    }

    /// Runs a command that must fail; gives its exit code and what it said.
    ///
    /// # Errors
    /// It succeeds, or cannot be run.
    pub fn run_refused(&mut self, command: &str, limit: Duration) -> Result<(i32, String)> {
        let limit = self.context.patience(limit)?;
        let (code, out) = self
            .ssh
            .run_any(command, limit)
            .map_err(|error| self.explain(error))?;
        if code == 0 {
            bail!("`{command}` was to be refused, but succeeded:\n{out}");
        }
        Ok((code, out))
    }

    /// What `bootctl status --json` says.
    ///
    /// # Errors
    /// It cannot be run or prints no JSON.
    pub fn status(&mut self) -> Result<serde_json::Value> {
        self.json("bootctl status --json")
    }

    /// What a command prints, as JSON.
    ///
    /// # Errors
    /// It cannot be run or prints no JSON.
    pub fn json(&mut self, command: &str) -> Result<serde_json::Value> {
        let text = self.run(command)?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` printed no JSON:\n{text}"))
    }

    /// Types a line at the serial console, as somebody who stands there would.
    ///
    /// # Errors
    /// The console cannot be reached.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let mut socket = UnixStream::connect(&self.keyboard)
            .with_context(|| format!("cannot reach the console {}", self.keyboard.display()))?;
        write!(socket, "{line}\r").context("cannot type at the console")?;
        // The log has what comes back; here it is only taken away, so that QEMU does not wait for a reader.
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut echo = [0; 4096];
        while socket.read(&mut echo).is_ok_and(|read| read > 0) {}
        Ok(())
    }

    /// Switches it off at once: nothing inside is told, and what it had given to its disks is on them. For what a cut of
    /// the power loses see [`Machine::lose_power`].
    pub fn switch_off(&mut self) {
        // Asks first, because a killed QEMU leaves its temporary files; then makes sure.
        let _ = self.quit();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
    }

    /// What a recorded machine has written and flushed up to now.
    ///
    /// # Errors
    /// It is not recorded.
    pub fn writes(&self) -> Result<Log> {
        Log::open(&self.context.file(WRITES))
    }

    /// Cuts the power of a machine that was started by [`Context::start_recorded`] on `disk`, which loses by chance what
    /// was not flushed. The disk is then as the next start finds it.
    ///
    /// # Errors
    /// Its writes were not recorded, or the disk cannot be written.
    pub fn lose_power(mut self, disk: &Disk, chance: &mut fastrand::Rng) -> Result<Loss> {
        self.kill();
        let log = self.writes()?;
        Disk::copy(&self.context.file(BEFORE), disk.path(), disk.sector_size())?;
        loss::cut_power(disk, &log, log.entries.len(), chance)
    }

    /// Ends the emulation between one instruction and the next; what QEMU keeps in its own memory is lost.
    pub fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.qmp);
        let _ = std::fs::remove_file(&self.keyboard);
    }

    /// Waits until the machine has switched itself off.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_power_off(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + self.context.patience(limit)?;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let error = anyhow!(
                    "the machine did not switch itself off within {} s",
                    limit.as_secs()
                );
                return Err(self.explain(error));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// QEMU's control socket, which takes one client at a time.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.qmp)
    }

    /// Tells QEMU's control socket to quit.
    fn quit(&self) -> Result<()> {
        Qmp::connect(&self.qmp)?.command("quit", &json!({}))
    }

    /// Lets the first disk take so many writes a second.
    ///
    /// # Errors
    /// QEMU cannot be told.
    pub fn limit_writes(&self, a_second: u32) -> Result<()> {
        self.qmp()?.limit_first_disk(0, a_second)
    }

    /// An error with the end of the console log, and what imager said if the machine never ran.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let mut tail = self.console.tail(25);
        if tail.is_empty() {
            tail = std::fs::read_to_string(self.context.file("imager-run.log")).unwrap_or_default();
        }
        anyhow!(
            "{error:#}\nthe console's last lines ({}):\n{tail}",
            self.console.path().display()
        )
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.switch_off();
    }
}

/// The architecture's longest wait for one boot to a login, without KVM on a host that does much else: ten times what it
/// takes on an idle one, because a slow host is no failure.
#[must_use]
pub fn boot_limit(architecture: Architecture) -> Duration {
    match architecture {
        Architecture::X86_64 => Duration::from_secs(480),
        Architecture::Aarch64 => Duration::from_secs(720),
    }
}

/// The port of the host in QEMU's table of connections that leads to port 22.
fn forwarded_port(table: &str) -> Option<u16> {
    let row = table.lines().find(|line| line.contains("HOST_FORWARD"))?;
    // Protocol, descriptor, address and port of the host, address and port of the machine.
    let mut columns = row.split_whitespace();
    columns.nth(3)?.parse().ok()
}

/// `console.log`, `console-2.log`, …: a scenario that starts several machines keeps all logs.
fn free_name(context: &Context, stem: &str) -> PathBuf {
    let mut path = context.file(&format!("{stem}.log"));
    let mut n = 2;
    while path.exists() {
        path = context.file(&format!("{stem}-{n}.log"));
        n += 1;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_what_qemu_says() {
        let said = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 40123       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded_port(said), Some(40123));
        assert_eq!(forwarded_port("Hub -1 (net0):\r\n"), None);
    }
}
