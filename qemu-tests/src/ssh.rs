//! Commands inside a machine, over SSH with the key that was made for the tests.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Who logs in: an administrator of the tests' profiles. Every command runs through sudo.
pub const USER: &str = "tester";

/// How much ssh says of itself: what goes wrong.
const QUIET: &str = "ERROR";

/// A way into one machine.
#[derive(Clone, Debug)]
pub struct Ssh {
    key: PathBuf,
    port: u16,
}

impl Ssh {
    /// Into the machine whose port 22 is `port` here.
    #[must_use]
    pub fn new(key: &Path, port: u16) -> Ssh {
        Ssh {
            key: key.to_owned(),
            port,
        }
    }

    /// Runs a command; gives its standard output.
    ///
    /// # Errors
    /// It cannot be run, fails, or takes longer than `limit`.
    pub fn run(&self, command: &str, limit: Duration) -> Result<String> {
        self.run_and_say(command, limit, QUIET)
    }

    /// The same, with ssh saying all that it does, which is in the error.
    ///
    /// # Errors
    /// As there.
    pub fn run_aloud(&self, command: &str, limit: Duration) -> Result<String> {
        self.run_and_say(command, limit, "DEBUG1")
    }

    fn run_and_say(&self, command: &str, limit: Duration, level: &str) -> Result<String> {
        let (code, out, err) = self.finish(command, limit, level)?;
        if code != 0 {
            bail!("`{command}` inside the machine failed with exit code {code}:\n{out}{err}");
        }
        Ok(out)
    }

    /// Runs a command; gives its exit code and all that it printed.
    ///
    /// # Errors
    /// It cannot be run, or takes longer than `limit`.
    pub fn run_any(&self, command: &str, limit: Duration) -> Result<(i32, String)> {
        let (code, out, err) = self.finish(command, limit, QUIET)?;
        // ssh's own code for a connection that failed.
        if code == 255 {
            bail!("`{command}` cannot be run inside the machine:\n{err}");
        }
        Ok((code, out + &err))
    }

    /// Starts a command and does not wait for it.
    ///
    /// # Errors
    /// ssh cannot be started.
    pub fn spawn(&self, command: &str) -> Result<Child> {
        self.command(command, QUIET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ssh")
    }

    fn finish(&self, command: &str, limit: Duration, level: &str) -> Result<(i32, String, String)> {
        let mut child = self
            .command(command, level)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ssh")?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let readers = [
            std::thread::spawn(move || read_all(out)),
            std::thread::spawn(move || read_all(err)),
        ];
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().context("cannot wait for ssh")? {
                break status;
            }
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                let [out, err] = readers.map(|reader| reader.join().unwrap_or_default());
                bail!(
                    "`{command}` inside the machine took longer than {} s:\n{out}{err}",
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let [out, err] = readers.map(|reader| reader.join().unwrap_or_default());
        Ok((status.code().unwrap_or(255), out, err))
    }

    fn command(&self, command: &str, level: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i")
            .arg(&self.key)
            .arg("-p")
            .arg(self.port.to_string());
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            // A throwaway machine has a new host key every time.
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            // Until the server answers.
            "ConnectTimeout=120",
            "ServerAliveInterval=10",
            "ServerAliveCountMax=6",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-o", &format!("LogLevel={level}")]);
        let command = format!("sudo -n sh -c {}", quote(command));
        ssh.arg("-F")
            .arg("/dev/null")
            .arg(format!("{USER}@127.0.0.1"))
            .arg("--")
            .arg(command);
        ssh
    }
}

fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One word for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_survive_a_shell() {
        assert_eq!(super::quote("echo 'a b' $c"), r"'echo '\''a b'\'' $c'");
    }
}
