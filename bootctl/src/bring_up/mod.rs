//! Brings up what the profile rendered to: files, then units and steps in order.

pub(crate) mod step;

use profile::{Action, Rendered, When};
use tokio::sync::watch;

use crate::failure::{Failure, Result};
use crate::os::paths::Paths;
use crate::os::systemd::Systemd;
use crate::profile::apply::{implausible_clock, write_files};

/// Between two looks at a clock that is not yet plausible.
const LOOK: std::time::Duration = std::time::Duration::from_secs(2);

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BringUp {
    /// With what it is doing.
    Running(String),
    Done,
    /// Something that is required failed for good.
    Failed(String),
}

impl BringUp {
    pub(crate) fn doing(&self) -> Option<String> {
        match self {
            Self::Running(doing) => Some(doing.clone()),
            _ => None,
        }
    }
}

/// Does all of it, telling `progress`.
pub(crate) async fn bring_up(
    paths: Paths,
    rendered: Rendered,
    systemd: Option<Systemd>,
    progress: watch::Sender<BringUp>,
) {
    let note = |line: &str| {
        eprintln!("bootctl: {line}");
        let _ = progress.send(BringUp::Running(line.to_owned()));
    };
    let end = match all(&paths, &rendered, systemd.as_ref(), &note).await {
        Ok(()) => BringUp::Done,
        Err(e) => BringUp::Failed(e.to_string()),
    };
    let _ = progress.send(end);
}

async fn all(
    paths: &Paths,
    rendered: &Rendered,
    systemd: Option<&Systemd>,
    note: &dyn Fn(&str),
) -> Result<()> {
    // No certificate is made while the time is a guess. The gate knows how long that may take.
    if !rendered.bring_up.is_empty() {
        if let Some(why) = implausible_clock(paths) {
            note(&format!("waiting for the time: {why}"));
        }
        while implausible_clock(paths).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }
    let units = |path: &str| path.contains("/systemd/");
    let brings_units = rendered
        .files
        .iter()
        .any(|f| f.when == When::BringUp && units(&f.path));
    if write_files(paths, rendered, When::BringUp)? > 0
        && brings_units
        && let Some(systemd) = systemd
    {
        systemd.reload().await?;
    }
    let at = |path: &str| paths.at(path);
    for action in &rendered.bring_up {
        match action {
            Action::Start { unit } => {
                note(&format!("starting {unit}"));
                systemd
                    .ok_or_else(|| Failure::failed("systemd does not answer"))?
                    .start(unit)
                    .await?;
            }
            Action::Run(_) if !paths.are_real() => {}
            Action::Run(step) => match step::step(step, &at, note).await {
                Err(e) if step.required => return Err(e),
                Err(e) => eprintln!("bootctl: {e}"),
                Ok(()) => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn nothing_is_brought_up_before_the_time_is_plausible() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let put = |path: std::path::PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            paths.image("image.json"),
            r#"{"product":"demo","version":"1.0","architecture":"x86_64","security_version":1,
                "state_epoch":1,"build_time":1790000000,"kubernetes":null,"vm":["none"],"kernel":"6.12"}"#,
        );
        put(
            paths.at("/etc/machine-id"),
            "0123456789abcdef0123456789abcdef\n",
        );
        put(
            paths.run("applied.json"),
            r#"{"profile":"x","problem":null,
                "clock":{"found":0,"raised_to":1790000000,"implausible":"never saved"}}"#,
        );
        let mut rendered = crate::profile::choose::choose(&paths).unwrap().rendered;
        // Without anything to bring up there is nothing to wait for.
        all(&paths, &rendered, None, &|_| ()).await.unwrap();
        rendered.bring_up.push(Action::Start {
            unit: "a.service".into(),
        });
        let soon = Duration::from_millis(200);
        let waiting = tokio::time::timeout(soon, all(&paths, &rendered, None, &|_| ())).await;
        assert!(waiting.is_err(), "it did not wait");
        put(paths.at("/run/systemd/timesync/synchronized"), "");
        let e = all(&paths, &rendered, None, &|_| ()).await.unwrap_err();
        assert!(e.what.contains("systemd does not answer"), "{e}");
    }
}
