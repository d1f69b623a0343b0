//! Runs what a profile rendered: commands with a time limit, steps with conditions and stamps.
//!
//! A command gets a process group of its own, so that what it started goes with it when it is
//! killed, and an environment of four variables.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use profile::{Condition, Probe, Step, Work};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::{Doing, Failure, Result};
use crate::os::clock::Pace;
use crate::os::files::write_whole;
use crate::os::paths::Paths;
use crate::os::systemd::Systemd;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most of a check's output that is kept.
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

/// Kills the process group of `child` and reaps it.
async fn kill(child: &mut Child) {
    if let Some(group) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill().await;
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
        Ok(Err(e)) => Err(Failure::failed(e).doing(argv.join(" "))),
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

/// Runs a check: `Ok` if it ended with 0 and printed what was expected.
pub(crate) async fn check(check: &profile::Check) -> std::result::Result<(), String> {
    let Probe::Command {
        command: argv,
        expect,
    } = &check.probe;
    let mut child = command(argv, &[])
        .map_err(|e| e.what)?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", argv.first().map_or("", String::as_str)))?;
    let mut out = Vec::new();
    let mut err = Vec::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(check.timeout, async {
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
    match ended {
        Err(_) => {
            kill(&mut child).await;
            Err(format!("no answer within {} s", check.timeout.as_secs()))
        }
        Ok(Err(e)) => Err(e.to_string()),
        Ok(Ok(status)) if !status.success() => {
            let said = String::from_utf8_lossy(&err);
            let line = said
                .lines()
                .rev()
                .find(|l| !l.trim().is_empty())
                .unwrap_or("");
            Err(if line.is_empty() {
                status.to_string()
            } else {
                shorten(line.trim(), 160)
            })
        }
        Ok(Ok(_)) => match expect {
            None => Ok(()),
            Some(wanted) => {
                let printed = String::from_utf8_lossy(&out);
                if printed.trim() == wanted.trim() {
                    Ok(())
                } else {
                    Err(format!(
                        "\"{}\", expected \"{}\"",
                        shorten(printed.trim(), 80),
                        shorten(wanted.trim(), 80)
                    ))
                }
            }
        },
    }
}

/// Whether a step's condition holds. Only ENOENT says that something is missing: what a failing disk hides may be all
/// that this machine has.
fn holds(condition: &Condition, paths: &Paths) -> Result<bool> {
    let (Condition::Exists { path }
    | Condition::Missing { path }
    | Condition::Differs { path, .. }) = condition;
    let path = paths.at(path);
    let found = match condition {
        Condition::Exists { .. } => path.symlink_metadata().map(|_| true),
        Condition::Missing { .. } => path.symlink_metadata().map(|_| false),
        Condition::Differs { content, .. } => {
            std::fs::read(&path).map(|found| found != content.as_bytes())
        }
    };
    match found {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(!matches!(condition, Condition::Exists { .. }))
        }
        found => found.doing(|| format!("looking at {}", path.display())),
    }
}

/// Whether all of a step's conditions hold.
fn is_due(step: &Step, paths: &Paths) -> Result<bool> {
    for condition in &step.conditions {
        if !holds(condition, paths)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One attempt at a step, if its conditions hold; they are numbered from 1.
pub(crate) async fn attempt(step: &Step, number: u32, paths: &Paths) -> Result<()> {
    let tried = async {
        if !is_due(step, paths)? {
            return Ok(());
        }
        if number > 1
            && let Some(recover) = &step.recover
        {
            Box::pin(attempt(recover, 1, paths)).await?;
        }
        match &step.work {
            Work::Start { unit } => {
                Systemd::of(paths, Pace::default())
                    .await?
                    .start(unit)
                    .await?
            }
            Work::Run {
                command,
                env,
                timeout,
            } => run(command, env, *timeout).await?,
        }
        match &step.stamp {
            Some(stamp) => put(&paths.at(&stamp.path), stamp.content.as_bytes()),
            None => Ok(()),
        }
    };
    tried.await.map_err(|e| e.doing(&step.name))
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    write_whole(path, content, 0o600, true).doing(|| format!("writing {}", path.display()))
}

/// At most `max` characters of `text`.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        text.to_owned()
    } else {
        text.chars()
            .take(max.saturating_sub(1))
            .chain(['…'])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use profile::{Check, Stamp};

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn printing(script: &str, expect: Option<&str>) -> Probe {
        Probe::Command {
            command: sh(script),
            expect: expect.map(str::to_owned),
        }
    }

    fn a_step(script: &str) -> Step {
        Step {
            name: "test".into(),
            work: Work::Run {
                command: sh(script),
                env: vec![],
                timeout: Duration::from_secs(10),
            },
            conditions: vec![],
            stamp: None,
            recover: None,
            attempts: 1,
            pause: Duration::ZERO,
            required: true,
        }
    }

    #[tokio::test]
    async fn a_step_remembers_by_its_stamp_that_it_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let log = dir.path().join("log");
        let mut s = a_step(&format!("echo ran >> {}", log.display()));
        s.conditions = vec![Condition::Differs {
            path: "/stamp".into(),
            content: "1".into(),
        }];
        s.stamp = Some(Stamp {
            path: "/stamp".into(),
            content: "1".into(),
        });
        attempt(&s, 1, &paths).await.unwrap();
        attempt(&s, 1, &paths).await.unwrap();
        assert_eq!(std::fs::read_to_string(log).unwrap(), "ran\n");
    }

    #[tokio::test]
    async fn a_step_is_tried_again_after_its_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let good = dir.path().join("good");
        let mut s = a_step(&format!(
            "test -e {} || {{ echo no such luck >&2; exit 3; }}",
            good.display()
        ));
        let failed = attempt(&s, 1, &paths).await.unwrap_err();
        assert!(failed.to_string().contains("no such luck"), "{failed}");
        s.recover = Some(Box::new(a_step(&format!("touch {}", good.display()))));
        attempt(&s, 1, &paths).await.unwrap_err();
        attempt(&s, 2, &paths).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let log = dir.path().join("log");
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let missing = |path: &str| Condition::Missing { path: path.into() };
        let exists = |path: &str| Condition::Exists { path: path.into() };
        let differs = |path: &str| Condition::Differs {
            path: path.into(),
            content: "1".into(),
        };
        // ENOTDIR and EISDIR stand for whatever a disk may answer.
        for condition in [
            missing("/file/below"),
            exists("/file/below"),
            differs("/file/below"),
            differs("/folder"),
        ] {
            let mut s = a_step(&format!("echo ran >> {}", log.display()));
            s.conditions = vec![condition.clone()];
            let e = attempt(&s, 1, &paths).await.unwrap_err().to_string();
            assert!(e.contains("test: looking at "), "{condition:?}: {e}");
            // Nor is anything cleared on the strength of it.
            let mut failing = a_step("exit 1");
            failing.recover = Some(Box::new(s));
            let e = attempt(&failing, 2, &paths).await.unwrap_err().to_string();
            assert!(e.contains("looking at "), "{condition:?}: {e}");
        }
        assert!(!log.exists());
        for (condition, holds) in [
            (missing("/none"), true),
            (missing("/none/below"), true),
            (missing("/file"), false),
            (exists("/none"), false),
            (differs("/none"), true),
        ] {
            let _ = std::fs::remove_file(&log);
            let mut s = a_step(&format!("echo ran >> {}", log.display()));
            s.conditions = vec![condition.clone()];
            attempt(&s, 1, &paths).await.unwrap();
            assert_eq!(log.exists(), holds, "{condition:?}");
        }
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_its_children() {
        let begun = std::time::Instant::now();
        let e = run(&sh("sleep 60 & sleep 60"), &[], Duration::from_millis(300))
            .await
            .unwrap_err();
        assert!(e.what.contains("was killed"), "{e}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_check_compares_what_is_printed() {
        let mut c = Check {
            name: "x".into(),
            probe: printing("echo True", Some("True")),
            blame: profile::Blame::Image,
            timeout: Duration::from_secs(10),
        };
        check(&c).await.unwrap();
        c.probe = printing("echo True", Some("False"));
        assert_eq!(check(&c).await.unwrap_err(), "\"True\", expected \"False\"");
        c.probe = printing("echo a >&2; echo b >&2; exit 1", None);
        assert_eq!(check(&c).await.unwrap_err(), "b");
        c.probe = printing("sleep 9", None);
        c.timeout = Duration::from_millis(200);
        assert!(check(&c).await.unwrap_err().starts_with("no answer"));
    }
}
