//! One attempt at a step of what a profile rendered: its conditions, its work, its stamp.

use std::path::Path;

use profile::{Condition, Step, Work};

use crate::failure::{Doing, Failure, Result};
use crate::kubernetes::ApiServers;
use crate::os::clock::Pace;
use crate::os::files::write_durable;
use crate::os::paths::Paths;
use crate::os::process;
use crate::os::systemd::Systemd;

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
            small_file::read(&path).map(|found| found != content.as_bytes())
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
pub(crate) async fn attempt(
    step: &Step,
    number: u32,
    paths: &Paths,
    api: &ApiServers,
) -> Result<()> {
    let tried = async {
        if !is_due(step, paths)? {
            return Ok(());
        }
        if number > 1
            && let Some(recover) = &step.recover
        {
            Box::pin(attempt(recover, 1, paths, api)).await?;
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
            } => process::run(command, env, *timeout).await?,
            Work::Ask {
                kubeconfig,
                question,
                timeout,
            } => {
                let api = api.at(kubeconfig);
                let answer = api.answer(question, *timeout).await;
                answer.map_err(Failure::failed)?;
            }
            Work::Apply {
                kubeconfig,
                file,
                timeout,
            } => {
                let file = paths.at(file);
                let documents = std::fs::read_to_string(&file)
                    .doing(|| format!("reading {}", file.display()))?;
                let api = api.at(kubeconfig);
                let applied = api.apply(&documents, *timeout).await;
                applied.map_err(Failure::failed)?;
            }
        }
        match &step.stamp {
            Some(stamp) => put(&paths.at(&stamp.path), stamp.content.as_bytes()),
            None => Ok(()),
        }
    };
    tried.await.map_err(|e| e.doing(&step.name))
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    write_durable(path, content, 0o600).doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use profile::Stamp;

    async fn attempted(step: &Step, number: u32, paths: &Paths) -> Result<()> {
        attempt(step, number, paths, &ApiServers::new(paths.clone())).await
    }

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
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
        attempted(&s, 1, &paths).await.unwrap();
        attempted(&s, 1, &paths).await.unwrap();
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
        let failed = attempted(&s, 1, &paths).await.unwrap_err();
        assert!(failed.to_string().contains("no such luck"), "{failed}");
        s.recover = Some(Box::new(a_step(&format!("touch {}", good.display()))));
        attempted(&s, 1, &paths).await.unwrap_err();
        attempted(&s, 2, &paths).await.unwrap();
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
            let e = attempted(&s, 1, &paths).await.unwrap_err().to_string();
            assert!(e.contains("test: looking at "), "{condition:?}: {e}");
            // Nor is anything cleared on the strength of it.
            let mut failing = a_step("exit 1");
            failing.recover = Some(Box::new(s));
            let e = attempted(&failing, 2, &paths)
                .await
                .unwrap_err()
                .to_string();
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
            attempted(&s, 1, &paths).await.unwrap();
            assert_eq!(log.exists(), holds, "{condition:?}");
        }
    }
}
