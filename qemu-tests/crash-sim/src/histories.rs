//! Machines' lives: which images there are, and what is done to a machine one step after the other.

use anyhow::Result;
use boot_core::{Slot, Target};

use crate::history::Step::{
    self, Activate, ComesUp, DamagedCopy, GiveUp, Install, InstallForced, InstallNow, LostRecord,
    OneShot, PulledPlug, Repair, Rollback, RottenRoot, RottenUki, Start, UpdateRecovery,
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
    let recoveries = ["1.0-recovery", "2.0-recovery"]
        .into_iter()
        .map(Sample::recovery);
    systems.chain(recoveries).collect()
}

/// A machine's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) steps: &'static [Step],
}

/// All of them. Each begins with a new disk that holds version 1.0 in slot A, and recovery.
pub(crate) const HISTORIES: &[History] = &[
    History {
        name: "upgrades",
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
];
