//! No lost, damaged or unreadable note, no cut of the power and no failure ever has a cluster erased or made anew.
//!
//! The steps that a profile renders to are run by a small interpreter over a few paths: what each condition says, what
//! kubeadm leaves, when etcd has a database. What it runs is compared with what there was to lose.

use std::collections::BTreeMap;

use profile::{Condition, ImageFacts, Lane, MachineFacts, Step, Work};

const NOTES: [&str; 3] = [BEGUN, CLUSTER, APPLIED];
const BEGUN: &str = "/etc/kubernetes/sternpost/begun";
const CLUSTER: &str = "/etc/kubernetes/sternpost/cluster";
const APPLIED: &str = "/etc/kubernetes/sternpost/addons";
const PKI: &str = "/etc/kubernetes/pki";
const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";
const DATABASE: &str = "/var/lib/etcd/member";

fn lanes() -> Vec<Lane> {
    let image: ImageFacts = serde_json::from_str(
        r#"{"product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1, "state_epoch": 1,
            "build_time": 0, "kubernetes": {"distribution": "kubeadm", "version": "1.36.3"}, "vm": ["none"]}"#,
    )
    .expect("facts");
    let machine = MachineFacts {
        machine_id: "0f3b5c1a2d4e46788a9bacbdcedfe0f1".into(),
        boot_id: "5d0f8f2a-8a4f-4bb8-9a62-0d0d9c7a1e11".into(),
    };
    let text = "version: 1\nkubernetes: {distribution: kubeadm, role: init}\n";
    let profile = profile::parse_for(text, "p", &image).expect("valid");
    profile::render(&profile, &image, &machine)
        .expect("it renders")
        .lanes
}

/// The key of the configuration in force.
fn key(lanes: &[Lane]) -> String {
    let mut steps = lanes.iter().flat_map(|lane| &lane.steps);
    let stamp = steps.find_map(|step| step.stamp.clone());
    stamp.expect("a stamp").content
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Content(String),
    /// Looking there fails with something else than "there is nothing".
    Unreadable,
}

/// What goes wrong, once, in the step with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    CutBefore(usize),
    /// The command has done its work, and nobody noted it.
    CutAfter(usize),
    /// The first attempt did what it does, and said that it failed.
    Fails(usize),
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// The power went, or a step of some lane failed for good.
    Stopped,
}

#[derive(Debug, Clone, Default)]
struct Machine {
    files: BTreeMap<String, Found>,
    /// Every command of this start, as one line.
    ran: Vec<String>,
    /// The database was emptied.
    lost: bool,
}

impl Machine {
    fn with(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, content)| (path.to_string(), Found::Content(content.to_string())));
        Self {
            files: files.collect(),
            ..Self::default()
        }
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    fn content(&self, path: &str) -> Option<&str> {
        match self.files.get(path)? {
            Found::Content(content) => Some(content),
            Found::Unreadable => None,
        }
    }

    fn put(&mut self, path: &str, content: &str) {
        self.files
            .insert(path.into(), Found::Content(content.into()));
    }

    fn is_due(&self, step: &Step) -> Result<bool, ()> {
        for condition in &step.conditions {
            let (Condition::Exists { path }
            | Condition::Missing { path }
            | Condition::Differs { path, .. }) = condition;
            let found = self.files.get(path);
            if found == Some(&Found::Unreadable) {
                return Err(());
            }
            let holds = match condition {
                Condition::Exists { .. } => found.is_some(),
                Condition::Missing { .. } => found.is_none(),
                Condition::Differs { content, .. } => {
                    found != Some(&Found::Content(content.clone()))
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(&mut self, work: &Work) {
        let line = match work {
            Work::Start { unit } => format!("start {unit}"),
            Work::Run { command, .. } => command.join(" "),
            Work::Ask { question, .. } => format!("ask {question:?}"),
            Work::Apply { file, .. } => format!("apply {file}"),
        };
        if line.contains("kubeadm reset") {
            self.lost |= self.has(DATABASE);
            // The folder stays.
            self.files.remove(CA_KEY);
            self.files.remove(DATABASE);
        } else if let Some(paths) = line.strip_prefix("/usr/bin/rm ") {
            for path in paths.split(' ') {
                self.files.remove(path);
            }
        } else if line.contains("init phase certs all") {
            self.put(PKI, "");
            self.put(CA_KEY, "");
        } else if line.contains("kubeadm init --config") || line == "start kubelet.service" {
            self.put(PKI, "");
            self.put(DATABASE, "");
        }
        self.ran.push(line);
    }

    fn step(&mut self, step: &Step, number: usize, fault: Option<Fault>) -> Result<(), ()> {
        if !self.is_due(step)? {
            return Ok(());
        }
        if fault == Some(Fault::CutBefore(number)) {
            return Err(());
        }
        self.run(&step.work);
        if fault == Some(Fault::CutAfter(number)) {
            return Err(());
        }
        if fault == Some(Fault::Fails(number)) {
            if step.attempts == 1 {
                return Err(());
            }
            if let Some(recover) = &step.recover {
                self.step(recover, usize::MAX, None)?;
            }
            self.run(&step.work);
        }
        if let Some(stamp) = &step.stamp {
            self.put(&stamp.path, &stamp.content);
        }
        Ok(())
    }

    /// One start, one lane after the other: none waits for one that comes later. Those that wait for one that failed
    /// never begin.
    fn start(&mut self, lanes: &[Lane], fault: Option<Fault>) -> End {
        self.ran.clear();
        let mut failed = Vec::new();
        let mut number = 0;
        for lane in lanes {
            let mut ended = if lane.after.iter().any(|name| failed.contains(&name)) {
                Err(())
            } else {
                Ok(())
            };
            for step in &lane.steps {
                if ended.is_ok() {
                    ended = self.step(step, number, fault);
                }
                let cut = [Fault::CutBefore(number), Fault::CutAfter(number)];
                if ended.is_err() && fault.is_some_and(|fault| cut.contains(&fault)) {
                    return End::Stopped;
                }
                number += 1;
            }
            if ended.is_err() {
                failed.push(&lane.name);
            }
        }
        if failed.is_empty() {
            End::Done
        } else {
            End::Stopped
        }
    }

    fn ran(&self, words: &str) -> bool {
        self.ran.iter().any(|line| line.contains(words))
    }

    /// Whether this start made a cluster, or cleared one.
    fn made(&self) -> bool {
        ["kubeadm reset", "kubeadm init --config", "certs all"]
            .iter()
            .any(|words| self.ran(words))
    }

    fn is_made(&self, key: &str) -> bool {
        self.content(CLUSTER) == Some(key) && self.has(DATABASE) && !self.has(BEGUN)
    }
}

fn faults(lanes: &[Lane]) -> Vec<Option<Fault>> {
    (0..lanes.iter().map(|lane| lane.steps.len()).sum())
        .flat_map(|n| [Fault::CutBefore(n), Fault::CutAfter(n), Fault::Fails(n)])
        .map(Some)
        .chain([None])
        .collect()
}

#[test]
fn a_cluster_is_made_whatever_cuts_its_making_off_and_never_again() {
    let lanes = lanes();
    let key = key(&lanes);
    for first in faults(&lanes) {
        for second in faults(&lanes) {
            let context = format!("{first:?}, then {second:?}");
            let mut machine = Machine::default();
            machine.start(&lanes, first);
            machine.start(&lanes, second);
            assert_eq!(machine.start(&lanes, None), End::Done, "{context}");
            assert!(machine.is_made(&key), "{context}: {machine:?}");
            assert!(!machine.lost, "{context}: {machine:?}");
            machine.start(&lanes, None);
            assert!(!machine.made(), "{context}: {machine:?}");
            assert!(!machine.ran("certs renew"), "{context}: {machine:?}");
        }
    }
}

/// What was cut off before etcd ran, keys half written for instance, is made anew.
#[test]
fn what_never_ran_is_cleared() {
    let lanes = lanes();
    let mut machine = Machine::with(&[(BEGUN, "x"), (PKI, "half")]);
    machine.start(&lanes, None);
    assert!(machine.ran("kubeadm reset"), "{machine:?}");
    assert!(machine.is_made(&key(&lanes)), "{machine:?}");
}

/// `kubeadm reset` by hand leaves an empty folder of keys, and notes that are no longer true.
#[test]
fn what_was_cleared_by_hand_is_made_anew() {
    let lanes = lanes();
    let key = key(&lanes);
    let mut machine = Machine::with(&[(PKI, ""), (APPLIED, &key)]);
    assert_eq!(machine.start(&lanes, None), End::Done);
    assert!(machine.is_made(&key), "{machine:?}");
    assert!(machine.ran("apply "), "{machine:?}");
}

/// Every state that a machine can be in when it starts, with a name.
fn states(lanes: &[Lane]) -> Vec<(String, Machine)> {
    let key = key(lanes);
    let mut states = vec![
        ("nothing".into(), Machine::default()),
        (
            "made".into(),
            Machine::with(&[
                (CLUSTER, &key),
                (APPLIED, &key),
                (PKI, ""),
                (CA_KEY, ""),
                (DATABASE, ""),
            ]),
        ),
        (
            "made with other settings".into(),
            Machine::with(&[
                (CLUSTER, "v1.35.0 0123\n"),
                (APPLIED, "v1.35.0 0123\n"),
                (PKI, ""),
                (CA_KEY, ""),
                (DATABASE, ""),
            ]),
        ),
    ];
    for fault in faults(lanes) {
        let mut machine = Machine::default();
        machine.start(lanes, fault);
        states.push((format!("begun, {fault:?}"), machine));
    }
    states
}

#[test]
fn no_lost_or_damaged_note_has_a_database_erased() {
    let lanes = lanes();
    let key = key(&lanes);
    let damage: [Option<Found>; 4] = [
        None,
        Some(Found::Unreadable),
        Some(Found::Content(String::new())),
        Some(Found::Content("\0\0garbage".into())),
    ];
    for (state, before) in states(&lanes) {
        for note in NOTES {
            for damage in &damage {
                let mut machine = before.clone();
                let is_made = machine.has(CLUSTER);
                match damage {
                    None => machine.files.remove(note),
                    // Damage does not make a note where there was none.
                    Some(_) if !machine.has(note) => continue,
                    Some(found) => machine.files.insert(note.into(), found.clone()),
                };
                let context = format!("{state}: {note}: {damage:?}");
                let had_database = machine.has(DATABASE);
                let end = machine.start(&lanes, None);
                assert!(!machine.lost, "{context}: {machine:?}");
                assert!(!had_database || machine.has(DATABASE), "{context}");
                if is_made {
                    assert!(!machine.made(), "{context}: {machine:?}");
                }
                if damage == &Some(Found::Unreadable) {
                    assert_eq!(end, End::Stopped, "{context}: {machine:?}");
                } else {
                    assert_eq!(end, End::Done, "{context}: {machine:?}");
                    assert!(machine.is_made(&key), "{context}: {machine:?}");
                }
            }
        }
    }
}

/// A cluster whose stamp was lost is treated as one with other settings.
#[test]
fn a_cluster_without_its_stamp_is_adopted() {
    let lanes = lanes();
    let mut machine = Machine::with(&[(PKI, ""), (CA_KEY, ""), (DATABASE, "")]);
    assert_eq!(machine.start(&lanes, None), End::Done);
    for words in ["certs renew all", "control-plane all", "upload-config all"] {
        assert!(machine.ran(words), "{words}: {machine:?}");
    }
    assert!(!machine.made(), "{machine:?}");
    assert!(machine.is_made(&key(&lanes)), "{machine:?}");
}

/// A path of the database that cannot be read is no reason to take it for missing.
#[test]
fn an_unreadable_database_stops_everything() {
    let lanes = lanes();
    for path in [DATABASE, PKI] {
        let mut machine = Machine::with(&[(BEGUN, "x"), (PKI, ""), (CA_KEY, ""), (DATABASE, "")]);
        machine.files.insert(path.into(), Found::Unreadable);
        assert_eq!(machine.start(&lanes, None), End::Stopped, "{path}");
        assert!(!machine.ran("kubeadm"), "{path}: {machine:?}");
    }
}
