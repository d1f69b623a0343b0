//! What did not hold in the slot before this one: kept on `state`, so that a version on trial can be compared with what
//! ran before it.
//!
//! A site whose registry is gone, or a workload that never was rolled out, is not the new image's fault. What is known
//! from before is shown with each finding; it decides nothing. That a finding is not in it says less: it held, or was not
//! looked at, because a check before it did not hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::gate::Finding;
use crate::os::files::{read_json, write_durable};

/// The version of the file that this build writes and reads.
const FORMAT: u32 = 1;

/// A check that comes and goes must not wear the disk out: between two writes.
const PAUSE: Duration = Duration::from_secs(600);

/// `/state/sternpost/baseline.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Names of the findings that did not hold.
    failing: BTreeSet<String>,
}

/// What is known from before, and where it is kept.
pub(crate) struct Baseline {
    path: PathBuf,
    kept: Option<Content>,
    /// What did not hold at the look before.
    last: Option<Content>,
    written: Option<Instant>,
}

impl Baseline {
    /// What is kept at `path`. What is not there, or cannot be understood, says nothing.
    pub(crate) fn read(path: &Path) -> Self {
        let kept = read_json::<Content>(path).ok();
        Self {
            path: path.to_owned(),
            kept: kept.filter(|it| it.format == FORMAT),
            last: None,
            written: None,
        }
    }

    /// Notes in each finding that does not hold whether it did not before.
    pub(crate) fn compare(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|it| !it.ok) {
            let known = self.kept.as_ref();
            finding.before = known.is_some_and(|it| it.failing.contains(&finding.name));
        }
    }

    /// Keeps what did not hold at two looks in a row, for the version after this one: a machine that goes down looks
    /// unwell once.
    pub(crate) fn keep(&mut self, findings: &[Finding]) {
        let failing = findings.iter().filter(|it| !it.ok);
        let now = Content {
            format: FORMAT,
            failing: failing.map(|it| it.name.clone()).collect(),
        };
        let before = self.last.replace(now.clone());
        let soon = self.written.is_some_and(|at| at.elapsed() < PAUSE);
        if soon || before.as_ref() != Some(&now) || self.kept.as_ref() == Some(&now) {
            return;
        }
        self.written = Some(Instant::now());
        let written = serde_json::to_vec_pretty(&now)
            .map_err(std::io::Error::other)
            .and_then(|json| write_durable(&self.path, &json, 0o644));
        match written {
            Ok(()) => self.kept = Some(now),
            Err(e) => eprintln!("bootctl: writing {}: {e}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(name: &str) -> Finding {
        Finding::new(name, Err("refused".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_before_is_known_to_the_next_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        let mut good = Baseline::read(&path);
        let looked = [Finding::new("node", Ok(())), fails("till")];
        good.keep(&looked);
        assert!(!path.exists(), "one look is not enough");
        good.keep(&looked);

        let mut seen = [fails("node"), fails("till"), Finding::new("dns", Ok(()))];
        Baseline::read(&path).compare(&mut seen);
        assert_eq!(seen.each_ref().map(|it| it.before), [false, true, false]);
        let said = seen[1].to_string();
        assert_eq!(said, "till: refused (so it was before this version)");

        // One that comes and goes is written again after a while.
        good.keep(&[]);
        good.keep(&[]);
        Baseline::read(&path).compare(&mut seen);
        assert!(seen[1].before);
        tokio::time::advance(PAUSE).await;
        good.keep(&[]);
        Baseline::read(&path).compare(&mut seen);
        assert!(!seen[1].before);
    }

    #[test]
    fn what_cannot_be_understood_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        for text in ["", "[]", r#"{"format": 2, "failing": ["till"]}"#] {
            std::fs::write(&path, text).unwrap();
            let mut seen = [fails("till")];
            Baseline::read(&path).compare(&mut seen);
            assert!(!seen[0].before, "{text}");
        }
        // Nor is anything waited for that is no file.
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        assert!(Baseline::read(&path).kept.is_none());
    }
}
