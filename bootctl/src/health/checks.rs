//! One look at one check of the health plan.

use profile::{Check, Probe};

use crate::kubernetes::{Answer, ApiServer};
use crate::os::paths::Paths;
use crate::os::process::{self, shorten};

/// What checks are made with; keeps the connection to the Kubernetes API from one look to the next.
pub(crate) struct Checks {
    paths: Paths,
    api: Option<ApiServer>,
}

impl Checks {
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths, api: None }
    }

    /// `Ok` if it holds, else why it does not.
    pub(crate) async fn look(&mut self, check: &Check) -> Answer {
        match &check.probe {
            Probe::Command { command, expect } => prints(check, command, expect.as_deref()).await,
            Probe::Kubernetes {
                kubeconfig,
                question,
            } => {
                let kubeconfig = self.paths.at(kubeconfig);
                let api = self.api.take().filter(|api| api.is_of(&kubeconfig));
                let api = self
                    .api
                    .insert(api.unwrap_or_else(|| ApiServer::new(kubeconfig)));
                tokio::time::timeout(check.timeout, api.answer(question))
                    .await
                    .unwrap_or_else(|_| {
                        Err(format!("no answer within {} s", check.timeout.as_secs()))
                    })
            }
        }
    }
}

/// Whether a command ends with 0 and prints what is expected.
async fn prints(check: &Check, command: &[String], expect: Option<&str>) -> Answer {
    let output = process::output(command, check.timeout)
        .await
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        let mut lines = output.stderr.lines().rev();
        return Err(match lines.find(|line| !line.trim().is_empty()) {
            Some(line) => shorten(line.trim(), 160),
            None => output.status.to_string(),
        });
    }
    let printed = output.stdout.trim();
    match expect.map(str::trim) {
        Some(wanted) if wanted != printed => Err(format!(
            "\"{}\", expected \"{}\"",
            shorten(printed, 80),
            shorten(wanted, 80)
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn printing(script: &str, expect: Option<&str>) -> Probe {
        Probe::Command {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            expect: expect.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn a_check_compares_what_is_printed() {
        let mut checks = Checks::new(Paths::new(std::path::Path::new("/")));
        let mut c = Check {
            name: "x".into(),
            probe: printing("echo True", Some("True")),
            blame: profile::Blame::Image,
            timeout: Duration::from_secs(10),
        };
        checks.look(&c).await.unwrap();
        c.probe = printing("echo True", Some("False"));
        assert_eq!(
            checks.look(&c).await.unwrap_err(),
            "\"True\", expected \"False\""
        );
        c.probe = printing("echo a >&2; echo b >&2; exit 1", None);
        assert_eq!(checks.look(&c).await.unwrap_err(), "b");
        c.probe = printing("sleep 9", None);
        c.timeout = Duration::from_millis(200);
        assert!(checks.look(&c).await.unwrap_err().starts_with("no answer"));
    }
}
