//! Brings up what the profile rendered to: files, then units and steps in order.

use profile::{Action, Rendered, When};
use tokio::sync::watch;

use super::run;
use super::systemd::Systemd;
use crate::failure::{Failure, Result};
use crate::machine::Paths;
use crate::profiles::write_files;

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
            Action::Run(step) => match run::step(step, &at, note).await {
                Err(e) if step.required => return Err(e),
                Err(e) => eprintln!("bootctl: {e}"),
                Ok(()) => {}
            },
        }
    }
    Ok(())
}
