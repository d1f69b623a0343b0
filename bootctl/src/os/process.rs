//! Runs programs with a time limit.
//!
//! A program gets a process group of its own, so that what it started goes with it when it is killed, and an environment
//! of four variables and those of its step.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use boot_core::text::shorten;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::{Doing, Failure, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most of a program's output that is kept.
const OUTPUT: u64 = 64 * 1024;

fn command(argv: &[String], env: &[(String, String)]) -> Result<Command> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Failure::failed("a command without a program"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// How long a program that was killed may take to end: one that waits for a disk may never do.
const REAP: Duration = Duration::from_secs(1);

/// Kills the process group of `child` and reaps it, or leaves that for later.
async fn kill(child: &mut Child) {
    if let Some(group) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = tokio::time::timeout(REAP, child.kill()).await;
}

/// Runs a command for its result; what it prints goes to the journal, each line as it comes.
/// The last line of standard error is part of the failure.
pub(crate) async fn run(
    argv: &[String],
    env: &[(String, String)],
    timeout: Duration,
) -> Result<()> {
    let mut child = command(argv, env)?
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| argv.join(" "))?;
    let mut last = String::new();
    let ended = tokio::time::timeout(timeout, async {
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr.take(u64::MAX)).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
                if !line.trim().is_empty() {
                    last = line;
                }
            }
        }
        child.wait().await
    })
    .await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::failed(if last.is_empty() {
            format!("{} ended with {status}", argv[0])
        } else {
            format!("{} ended with {status}: {}", argv[0], shorten(&last, 160))
        })),
        Ok(Err(e)) => Err(Failure::of(e).doing(argv.join(" "))),
        Err(_) => {
            kill(&mut child).await;
            Err(Failure::failed(format!(
                "{} had not ended after {} s and was killed",
                argv[0],
                timeout.as_secs()
            )))
        }
    }
}

/// How a program ended, and what it printed.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command for what it prints.
pub(crate) async fn output(argv: &[String], timeout: Duration) -> Result<Output> {
    let mut child = command(argv, &[])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| argv[0].clone())?;
    let mut out = Vec::new();
    let mut err = Vec::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(timeout, async {
        let read_out = async {
            if let Some(pipe) = stdout {
                let _ = pipe.take(OUTPUT).read_to_end(&mut out).await;
            }
        };
        let read_err = async {
            if let Some(pipe) = stderr {
                let _ = pipe.take(OUTPUT).read_to_end(&mut err).await;
            }
        };
        tokio::join!(read_out, read_err);
        child.wait().await
    })
    .await;
    let Ok(status) = ended else {
        kill(&mut child).await;
        let within = format!("no answer within {} s", timeout.as_secs());
        return Err(Failure::failed(within));
    };
    Ok(Output {
        status: status.doing(|| argv[0].clone())?,
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: String::from_utf8_lossy(&err).into_owned(),
    })
}

/// Waits for something asynchronous where there is no runtime.
pub(crate) fn wait_for<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime")?
        .block_on(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_its_children() {
        let begun = std::time::Instant::now();
        let e = run(
            &["/bin/sh", "-c", "sleep 60 & sleep 60"].map(str::to_owned),
            &[],
            Duration::from_millis(300),
        )
        .await
        .unwrap_err();
        assert!(e.what.contains("was killed"), "{e}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
