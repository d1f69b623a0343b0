//! Which scenario ran when, on what, and how it ended: a line of JSON for each run, kept in the cache.
//!
//! A test that exists shows nothing until it has run. The gate takes a few of the scenarios that do not belong to it in
//! turn, by what the ledger says of them, and `scenarios --ledger` prints it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::scenario::{Architecture, Scenario};

/// The longest scenario that the gate takes beside its own, in seconds.
const LONGEST: u64 = 700;

/// One run of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub scenario: String,
    /// Digest of the image that it began with, and of this program.
    pub inputs: String,
    pub passed: bool,
    /// What it left to chance.
    pub seed: u64,
    /// How long it took.
    pub seconds: u64,
    /// When it ended, in seconds since 1970.
    pub time: u64,
}

/// The last run of each scenario, and the last one that passed.
#[derive(Clone, Debug, Default)]
struct Runs {
    last: Option<Run>,
    passed: Option<Run>,
}

/// The runs in one cache.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    runs: BTreeMap<String, Runs>,
}

impl Ledger {
    /// Those kept in `directory`, if there are any.
    ///
    /// # Errors
    /// The file cannot be read. A line that was cut off is left out.
    pub fn open(directory: &Path) -> Result<Ledger> {
        let path = directory.join("scenario-runs.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut runs: BTreeMap<String, Runs> = BTreeMap::new();
        for run in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Run>(line).ok())
        {
            let of = runs.entry(run.scenario.clone()).or_default();
            if run.passed {
                of.passed = Some(run.clone());
            }
            of.last = Some(run);
        }
        Ok(Ledger { path, runs })
    }

    /// Keeps one more.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, run: &Run) -> Result<()> {
        // In one write, a newline first: others may write too, and the last line may have been cut off.
        let line = format!("\n{}\n", serde_json::to_string(run)?);
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Of `scenarios`, those whose turn it is: that have not run for longest (one that fails does not keep the others from
    /// theirs), and where none of them has ever run, as on a host that keeps no cache, which of them `seed` says. The first however long it takes, so that each has its turn;
    /// with it those after it that take no more than `seconds` together.
    #[must_use]
    pub fn in_turn<'s>(
        &self,
        scenarios: &[&'s Scenario],
        seconds: u64,
        seed: u64,
    ) -> Vec<&'s Scenario> {
        let mut turn: Vec<_> = scenarios
            .iter()
            .copied()
            .filter(|it| may_have_a_turn(it))
            .collect();
        if !turn.is_empty() {
            let first = seed % turn.len() as u64;
            turn.rotate_left(first as usize);
        }
        let ran = |scenario: &&Scenario| {
            let runs = self.runs.get(scenario.name);
            runs.and_then(|runs| runs.last.as_ref()).map(|run| run.time)
        };
        turn.sort_by_key(ran);
        let mut left = None;
        turn.retain(|scenario| {
            let fits = left.is_none_or(|left| scenario.seconds <= left);
            if fits {
                left = Some(left.unwrap_or(seconds).saturating_sub(scenario.seconds));
            }
            fits
        });
        turn
    }

    /// A table in Markdown: a row for each of `scenarios`.
    #[must_use]
    pub fn table(&self, scenarios: &[&Scenario]) -> String {
        let mut text = String::from(
            "| scenario | in the gate | last passed | on | took | last run |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for scenario in scenarios {
            let runs = self.runs.get(scenario.name).cloned().unwrap_or_default();
            let (passed, on, took) = match &runs.passed {
                Some(run) => (
                    date(run.time),
                    run.inputs.as_str(),
                    format!("{} s", run.seconds),
                ),
                None => ("never".to_owned(), "", String::new()),
            };
            let last = match &runs.last {
                Some(run) if run.passed => "passed".to_owned(),
                Some(run) => format!("failed {} with seed {}", date(run.time), run.seed),
                None => String::new(),
            };
            let gate = if scenario.gate { "yes" } else { "" };
            let name = scenario.name;
            let _ = writeln!(
                text,
                "| `{name}` | {gate} | {passed} | {on} | {took} | {last} |"
            );
        }
        text
    }
}

/// Whether the gate takes it when its turn comes: on the gate's architecture, beside the gate's own, in bounded time.
fn may_have_a_turn(scenario: &Scenario) -> bool {
    !scenario.gate
        && scenario.architecture == Architecture::X86_64
        && !scenario.needs_the_host()
        && scenario.seconds <= LONGEST
}

/// A day, as in 2026-11-30.
fn date(time: u64) -> String {
    let said = Command::new("date")
        .args(["-u", "+%F", "-d", &format!("@{time}")])
        .output();
    said.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
        .unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::ALL;

    fn run(scenario: &str, passed: bool, time: u64) -> Run {
        Run {
            scenario: scenario.into(),
            inputs: "0123".into(),
            passed,
            seed: 1,
            seconds: 20,
            time,
        }
    }

    #[test]
    fn whose_turn_it_is_follows_from_the_ledger_and_else_from_the_seed() {
        let directory = tempfile::tempdir().unwrap();
        let all: Vec<_> = ALL.iter().collect();
        let ledger = Ledger::open(directory.path()).unwrap();
        let names = |seconds, seed| {
            let ledger = Ledger::open(directory.path()).unwrap();
            let turn = ledger.in_turn(&all, seconds, seed);
            turn.iter().map(|it| it.name).collect::<Vec<_>>()
        };
        let first = names(500, 7);
        let seconds = |name: &str| ALL.iter().find(|it| it.name == name).unwrap().seconds;
        let rest: u64 = first[1..].iter().map(|name| seconds(name)).sum();
        assert!(rest + seconds(first[0]).min(500) <= 500, "{first:?}");
        assert_ne!(first, names(500, 9), "each commit takes others");
        // However little time there is, one has its turn, be it the longest.
        assert_eq!(names(0, 7), first[..1]);
        // Once they have run, it is the others' turn, however they ended.
        ledger.add(&run(first[0], true, 100)).unwrap();
        let second = names(0, 7);
        assert_ne!(second, first[..1]);
        ledger.add(&run(second[0], false, 100)).unwrap();
        assert_ne!(names(0, 7), second);
        // When all have run, the longest ago comes first.
        for (at, scenario) in ALL.iter().enumerate() {
            ledger
                .add(&run(scenario.name, true, 1000 - at as u64))
                .unwrap();
        }
        let last = ALL.iter().rev().find(|it| may_have_a_turn(it)).unwrap();
        assert_eq!(names(0, 7), [last.name]);
    }

    #[test]
    fn the_table_says_what_passed_and_what_did_not() {
        let directory = tempfile::tempdir().unwrap();
        let name = ALL[0].name;
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.add(&run(name, true, 0)).unwrap();
        ledger.add(&run(name, false, 86_400)).unwrap();
        let table = Ledger::open(directory.path())
            .unwrap()
            .table(&[&ALL[0], &ALL[1]]);
        let row = format!(
            "| `{name}` | yes | 1970-01-01 | 0123 | 20 s | failed 1970-01-02 with seed 1 |"
        );
        assert!(table.contains(&row), "{table}");
        assert!(table.contains("| never |"), "{table}");
    }
}
