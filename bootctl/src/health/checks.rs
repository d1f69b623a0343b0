//! One look at one check of the health plan.

use boot_core::text::shorten;
use profile::{Check, Probe};

use crate::kubernetes::{Answer, ApiServers};
use crate::os::process;

/// `Ok` if it holds, else why it does not.
pub(crate) async fn look(check: &Check, api: &ApiServers) -> Answer {
    match &check.probe {
        Probe::Command { command, expect } => prints(check, command, expect.as_deref()).await,
        Probe::Kubernetes {
            kubeconfig,
            question,
        } => api.at(kubeconfig).answer(question, check.timeout).await,
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
        let paths = crate::os::paths::Paths::new(std::path::Path::new("/"));
        let api = ApiServers::new(paths);
        let mut c = Check {
            name: "x".into(),
            probe: printing("echo True", Some("True")),
            blame: profile::Blame::Image,
            timeout: Duration::from_secs(10),
        };
        look(&c, &api).await.unwrap();
        c.probe = printing("echo True", Some("False"));
        assert_eq!(
            look(&c, &api).await.unwrap_err(),
            "\"True\", expected \"False\""
        );
        c.probe = printing("echo a >&2; echo b >&2; exit 1", None);
        assert_eq!(look(&c, &api).await.unwrap_err(), "b");
        c.probe = printing("sleep 9", None);
        c.timeout = Duration::from_millis(200);
        assert!(look(&c, &api).await.unwrap_err().starts_with("no answer"));
    }
}
