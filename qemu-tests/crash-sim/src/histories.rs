//! Machines' lives: which images there are, and what is done to a machine one step after the other.

use anyhow::Result;
use boot_core::{Slot, Target};

use crate::history::Step::{
    self, Activate, ComesUp, DamagedCopy, ForeignVariables, GiveUp, Install, InstallForced,
    InstallNow, LostRecord, OneShot, PulledPlug, PutBack, Repair, Rollback, RottenRoot, RottenUki,
    Start, UpdateRecovery,
};
use crate::images::{Nature, Sample};

/// Images, by their place in [`samples`].
pub(crate) const ONE: usize = 0;
const TWO: usize = 1;
const UNHEALTHY: usize = 2;
const SILENT: usize = 3;
const THREE: usize = 4;
pub(crate) const RECOVERY: usize = 5;
const NEWER_RECOVERY: usize = 6;
const NEW_KEYS: usize = 7;
const NEWER: usize = 8;
/// Signed by a key that the keyring of [`NEW_KEYS`] has withdrawn, newer than everything else by its own account.
const STOLEN_KEY: usize = 9;
/// Of the highest security version that there is.
const HIGHEST: usize = 10;

/// The images of all histories.
///
/// # Errors
/// If one cannot be made.
pub(crate) fn samples() -> Result<Vec<Sample>> {
    let systems = [
        ("1.0", 1, Nature::Healthy),
        ("2.0", 2, Nature::Healthy),
        ("2.1-unhealthy", 2, Nature::Unhealthy),
        ("2.2-silent", 2, Nature::Silent),
        ("3.0", 3, Nature::Healthy),
    ];
    let systems = systems
        .into_iter()
        .map(|(version, security, nature)| Sample::new(version, security, nature, 2));
    let recoveries = [("1.0-recovery", 1), ("2.0-recovery", 2)]
        .into_iter()
        .map(|(version, security)| Sample::recovery(version, security));
    let by_keyring = [
        ("4.0", 4, 2),
        ("5.0", 5, 2),
        ("9.0-stolen-key", 9, 1),
        ("9.1-highest", u64::MAX, 1),
    ];
    let by_keyring = by_keyring.into_iter().map(|(version, security, serial)| {
        Sample::under_keyring(serial, version, security, Nature::Healthy, 2)
    });
    systems.chain(recoveries).chain(by_keyring).collect()
}

/// What is special about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// Secure Boot is on, so that firmware keeps floors.
    SecureBoot,
    /// Its hardware timer ends every start for which the loader arms it, before the agent can take it over.
    TimerTooEarly,
}

/// A machine's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    pub(crate) name: &'static str,
    /// What is special about its machine.
    pub(crate) quirk: Option<Quirk>,
    /// What is done.
    pub(crate) steps: &'static [Step],
}

/// All of them. Each begins with a new disk that holds version 1.0 in slot A, and recovery.
pub(crate) const HISTORIES: &[History] = &[
    History {
        name: "upgrades",
        quirk: None,
        steps: &[
            Start,
            Install(TWO),
            Activate,
            Start,
            InstallNow(THREE),
            Start,
            Start,
        ],
    },
    History {
        name: "unhealthy",
        quirk: None,
        steps: &[
            Start,
            InstallNow(UNHEALTHY),
            Start,
            Start,
            InstallForced(UNHEALTHY),
            Activate,
            Start,
            Start,
        ],
    },
    History {
        name: "unproven",
        quirk: None,
        steps: &[
            Start,
            InstallNow(SILENT),
            Start,
            Start,
            Start,
            Start,
            Activate,
            Start,
            Start,
            Start,
            Start,
            Install(TWO),
            Activate,
            Start,
        ],
    },
    History {
        name: "back-and-forth",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            Rollback,
            Start,
            Rollback,
            Start,
            OneShot(Target::A),
            Start,
            Start,
        ],
    },
    History {
        name: "pulled-plugs",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            Start,
        ],
    },
    History {
        name: "pulled-on-trial",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            PulledPlug,
            Start,
            Install(THREE),
            Install(TWO),
            Activate,
            Start,
        ],
    },
    History {
        name: "rollback-on-trial",
        quirk: None,
        steps: &[
            PulledPlug,
            Start,
            InstallNow(THREE),
            PulledPlug,
            Rollback,
            Start,
        ],
    },
    History {
        name: "damaged-copies",
        quirk: None,
        steps: &[
            Start,
            DamagedCopy(0),
            Start,
            InstallNow(TWO),
            DamagedCopy(1),
            Start,
            Start,
        ],
    },
    History {
        name: "lost-record",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            LostRecord,
            Start,
            Start,
            LostRecord,
            PulledPlug,
            Start,
            Start,
        ],
    },
    History {
        name: "repaired",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            RottenRoot(Slot::A),
            Repair,
            Activate,
            Start,
            RottenUki(Slot::B),
            Start,
            Repair,
            Activate,
            Start,
        ],
    },
    History {
        name: "rotten-on-trial",
        quirk: None,
        steps: &[
            Start,
            Install(TWO),
            Activate,
            RottenUki(Slot::B),
            Start,
            Repair,
            Activate,
            RottenRoot(Slot::B),
            ComesUp,
            Repair,
            Activate,
            Start,
        ],
    },
    History {
        name: "recovered",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            RottenUki(Slot::A),
            RottenUki(Slot::B),
            Start,
            Install(THREE),
            Activate,
            Start,
            Install(TWO),
            Activate,
            Start,
        ],
    },
    History {
        name: "recovered-from-roots",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            RottenUki(Slot::A),
            RottenRoot(Slot::B),
            ComesUp,
            InstallNow(THREE),
            Start,
            Repair,
            Activate,
            Start,
        ],
    },
    History {
        name: "given-up",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            RottenRoot(Slot::A),
            GiveUp,
            OneShot(Target::Recovery),
            Start,
            Repair,
            Activate,
            Start,
        ],
    },
    History {
        name: "recovery-replaced",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            UpdateRecovery(NEWER_RECOVERY),
            OneShot(Target::Recovery),
            Start,
            Start,
            RottenUki(Slot::A),
            RottenUki(Slot::B),
            Start,
            InstallNow(THREE),
            Start,
        ],
    },
    History {
        name: "withdrawn-key",
        quirk: Some(Quirk::SecureBoot),
        steps: &[
            Start,
            InstallNow(NEW_KEYS),
            Start,
            InstallNow(NEWER),
            Start,
            Start,
            PutBack(Target::B, STOLEN_KEY),
            Start,
            Start,
            PutBack(Target::A, STOLEN_KEY),
            Start,
        ],
    },
    History {
        name: "older-image-put-back",
        quirk: Some(Quirk::SecureBoot),
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            InstallNow(THREE),
            Start,
            Start,
            PutBack(Target::B, ONE),
            Start,
            LostRecord,
            Start,
        ],
    },
    History {
        name: "foreign-variables",
        quirk: Some(Quirk::SecureBoot),
        steps: &[ForeignVariables, Start, InstallNow(TWO), Start, Start],
    },
    History {
        name: "highest-version",
        quirk: Some(Quirk::SecureBoot),
        steps: &[
            Start,
            PutBack(Target::A, HIGHEST),
            PutBack(Target::B, HIGHEST),
            Start,
            Start,
        ],
    },
    History {
        name: "older-recovery-put-back",
        quirk: None,
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            UpdateRecovery(NEWER_RECOVERY),
            PutBack(Target::Recovery, RECOVERY),
            OneShot(Target::Recovery),
            Start,
            Start,
        ],
    },
    History {
        name: "timer-too-early",
        quirk: Some(Quirk::TimerTooEarly),
        steps: &[
            ComesUp,
            InstallNow(TWO),
            ComesUp,
            Repair,
            Activate,
            ComesUp,
            LostRecord,
            ComesUp,
            InstallNow(THREE),
            PulledPlug,
            ComesUp,
        ],
    },
    History {
        name: "timer-too-early-without-a-way-back",
        quirk: Some(Quirk::TimerTooEarly),
        steps: &[
            PulledPlug,
            PulledPlug,
            PulledPlug,
            ComesUp,
            RottenUki(Slot::A),
            ComesUp,
            GiveUp,
            InstallNow(TWO),
            ComesUp,
            OneShot(Target::Recovery),
            ComesUp,
            ComesUp,
        ],
    },
];
