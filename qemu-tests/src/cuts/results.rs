//! What became of each seed: a line of JSON each, kept beside the recordings, so that a campaign can go on another day.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::loss::Loss;
use crate::artefacts::Version;

/// One seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What everything else followed from.
    pub seed: u64,
    /// The stretch of life that was cut.
    pub phase: String,
    /// Entries of the log before the cut.
    pub at: usize,
    /// What the cut lost.
    pub loss: Loss,
    /// Further cuts while the machine came up again, and what each lost.
    pub further: Vec<Loss>,
    /// Starts of the loader from the last cut to the verdict.
    pub starts: usize,
    /// The version that runs at last, marked good; none if the machine did not become well.
    pub version: Option<String>,
    /// Recovery came up on the way, and installed by itself.
    pub recovered: bool,
    /// What went wrong.
    pub error: Option<String>,
    /// From the first cut to the end.
    pub seconds: u64,
}

/// The results of one pair of images.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    known: Mutex<BTreeMap<u64, Outcome>>,
}

impl Results {
    /// Those kept in `path`, if there are any.
    ///
    /// # Errors
    /// The file cannot be read. A last line that was cut off is left out.
    pub fn open(path: &Path) -> Result<Results> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let known = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Outcome>(line).ok())
            .map(|outcome| (outcome.seed, outcome))
            .collect();
        Ok(Results {
            path: path.to_owned(),
            known: Mutex::new(known),
        })
    }

    /// Where they are kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `seed` was tried, and the machine became well.
    #[must_use]
    pub fn is_well(&self, seed: u64) -> bool {
        self.of(seed)
            .is_some_and(|outcome| outcome.version.is_some())
    }

    /// What became of `seed`.
    #[must_use]
    pub fn of(&self, seed: u64) -> Option<Outcome> {
        self.known.lock().ok()?.get(&seed).cloned()
    }

    /// Keeps one more; a seed that was tried before has the newer outcome.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, outcome: Outcome) -> Result<()> {
        let mut known = self
            .known
            .lock()
            .map_err(|_| anyhow!("another cut ended in a panic"))?;
        let line = serde_json::to_string(&outcome)?;
        let what = || format!("cannot write {}", self.path.display());
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .with_context(what)?;
        // A newline first: the last line may have been cut off.
        writeln!(file, "\n{line}").with_context(what)?;
        known.insert(outcome.seed, outcome);
        Ok(())
    }
}

/// A table of what became of the cuts in each stretch, and a line with the totals.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut all = Row::default();
    for outcome in outcomes {
        rows.entry(&outcome.phase).or_default().add(outcome);
        all.add(outcome);
    }
    let mut text = format!(
        "| cut in | cuts | ended in {} | in {} | by way of recovery | cut again | failed |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        Version::First.number(),
        Version::Second.number()
    );
    for (phase, row) in &rows {
        text += &row.line(phase);
    }
    text += &all.line("all");
    text
}

#[derive(Default)]
struct Row {
    cuts: usize,
    first: usize,
    second: usize,
    recovered: usize,
    again: usize,
    failed: usize,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        self.cuts += 1;
        match outcome.version.as_deref() {
            Some(version) if version == Version::First.number() => self.first += 1,
            Some(_) => self.second += 1,
            None => self.failed += 1,
        }
        self.recovered += usize::from(outcome.recovered);
        self.again += outcome.further.len();
    }

    fn line(&self, phase: &str) -> String {
        format!(
            "| {phase} | {} | {} | {} | {} | {} | {} |\n",
            self.cuts, self.first, self.second, self.recovered, self.again, self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seed: u64, version: Option<&str>) -> Outcome {
        Outcome {
            seed,
            phase: "installation".into(),
            at: 10,
            loss: Loss::default(),
            further: vec![Loss::default()],
            starts: 1,
            version: version.map(str::to_owned),
            recovered: false,
            error: version.is_none().then(|| "it hangs".into()),
            seconds: 20,
        }
    }

    #[test]
    fn results_add_up_over_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl");
        let results = Results::open(&path).unwrap();
        results.add(outcome(1, Some("1.0.0"))).unwrap();
        results.add(outcome(2, None)).unwrap();
        // The program was killed while it wrote.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seed\":3").unwrap();
        let results = Results::open(&path).unwrap();
        results.add(outcome(4, Some("2.0.0"))).unwrap();
        let results = Results::open(&path).unwrap();
        assert!(results.is_well(1) && results.is_well(4));
        assert!(!results.is_well(2), "tried again");
        assert_eq!(results.of(3), None);
        assert_eq!(results.of(2), Some(outcome(2, None)));
    }

    #[test]
    fn the_table_counts() {
        let outcomes = [outcome(1, Some("1.0.0")), outcome(2, None)];
        let text = table(&outcomes);
        assert!(
            text.contains("| installation | 2 | 1 | 0 | 0 | 2 | 1 |"),
            "{text}"
        );
        assert!(text.contains("| all | 2 | 1 | 0 | 0 | 2 | 1 |"), "{text}");
    }
}
