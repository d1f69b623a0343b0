//! QEMU's control socket: one JSON object a line (docs/interop/qmp-spec.rst of QEMU).

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(120);

/// What resets a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// The emulated hardware watchdog.
    Watchdog,
    /// Its own software: firmware or kernel.
    Itself,
}

/// A connection. There can be one at a time.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    line: String,
}

impl Qmp {
    /// Connects to `socket`.
    ///
    /// # Errors
    /// Nobody listens, or not QEMU.
    pub fn connect(socket: &Path) -> Result<Qmp> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot reach QEMU at {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut qmp = Qmp {
            reader: BufReader::new(stream),
            line: String::new(),
        };
        qmp.wait_for("its greeting", ANSWER, |said| said.get("QMP").is_some())?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has QEMU do something.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub fn command(&mut self, name: &str, arguments: &Value) -> Result<()> {
        self.ask(name, arguments).map(drop)
    }

    /// Has QEMU do something; gives what it answers.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub fn ask(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let command = json!({"execute": name, "arguments": arguments});
        writeln!(self.reader.get_mut(), "{command}").context("cannot write to QEMU")?;
        let answer = self.wait_for(name, ANSWER, |said| {
            said.get("return").is_some() || said.get("error").is_some()
        })?;
        match answer.get("error") {
            Some(error) => bail!("QEMU refuses {name}: {error}"),
            None => Ok(answer["return"].clone()),
        }
    }

    /// What QEMU's monitor for people says to a line.
    ///
    /// # Errors
    /// QEMU refuses, or does not answer.
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let said = self.ask("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Limits the machine's first disk to so many bytes and so many writes a second; 0 is no limit, and with one byte it
    /// hangs until the machine is reset.
    ///
    /// # Errors
    /// QEMU refuses, or does not answer.
    pub fn limit_first_disk(&mut self, bytes: u32, writes: u32) -> Result<()> {
        let limits = json!({
            "device": "disk0", "bps": bytes, "bps_rd": 0, "bps_wr": 0,
            "iops": 0, "iops_rd": 0, "iops_wr": writes,
        });
        self.command("block_set_io_throttle", &limits)
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn wait_for_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        self.wait_for(name, limit, |said| said["event"] == name)
    }

    /// Waits for the first of several events; gives its name.
    ///
    /// # Errors
    /// None comes in time.
    pub fn wait_for_first(&mut self, names: &[&str], limit: Duration) -> Result<String> {
        let what = names.join(" or ");
        let is_it = |said: &Value| said["event"].as_str().is_some_and(|it| names.contains(&it));
        let said = self.wait_for(&what, limit, is_it)?;
        Ok(said["event"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the machine is reset, which is to be `by` this and nothing else, no sooner than `least` from now and
    /// within `most`.
    ///
    /// # Errors
    /// It is not, or by something else, or too soon.
    pub fn wait_for_reset(&mut self, by: ResetBy, least: Duration, most: Duration) -> Result<()> {
        let began = Instant::now();
        // The watchdog's own event comes before the one of the reset that it brings about.
        let found = match self.wait_for_first(&["WATCHDOG", "RESET"], most)?.as_str() {
            "WATCHDOG" => ResetBy::Watchdog,
            _ => ResetBy::Itself,
        };
        let after = began.elapsed();
        if found != by || after < least {
            bail!(
                "the machine was reset by {found:?} after {} s, where it was to be by {by:?}, after {} s at least",
                after.as_secs(),
                least.as_secs()
            );
        }
        Ok(())
    }

    fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match self.reader.read_line(&mut self.line) {
                Ok(0) => bail!("QEMU ended while {what} was waited for"),
                Ok(_) => {
                    let said = serde_json::from_str(&self.line)
                        .with_context(|| format!("QEMU said no JSON: {}", self.line))?;
                    self.line.clear();
                    if is_it(&said) {
                        return Ok(said);
                    }
                }
                // What has come of a line stays in `line`.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e).context("cannot read from QEMU"),
            }
        }
        bail!("QEMU did not say {what} within {} s", limit.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to a QEMU that has said this already.
    fn said(lines: &str) -> (Qmp, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        theirs.write_all(lines.as_bytes()).unwrap();
        let qmp = Qmp {
            reader: BufReader::new(ours),
            line: String::new(),
        };
        (qmp, theirs)
    }

    #[test]
    fn another_reset_than_the_one_meant_or_one_too_soon_does_not_count() {
        let by_watchdog = "{\"event\": \"WATCHDOG\"}\n{\"event\": \"RESET\"}\n";
        let by_itself = "{\"event\": \"SHUTDOWN\"}\n{\"event\": \"RESET\"}\n";
        let most = Duration::from_secs(5);
        for (lines, meant, other) in [
            (by_watchdog, ResetBy::Watchdog, ResetBy::Itself),
            (by_itself, ResetBy::Itself, ResetBy::Watchdog),
        ] {
            let waited = |by, least| said(lines).0.wait_for_reset(by, least, most);
            waited(meant, Duration::ZERO).unwrap();
            waited(other, Duration::ZERO).unwrap_err();
            waited(meant, most).unwrap_err();
        }
        let (mut silent, _qemu) = said("");
        let none =
            silent.wait_for_reset(ResetBy::Itself, Duration::ZERO, Duration::from_millis(30));
        none.unwrap_err();
    }
}
