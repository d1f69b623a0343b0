//! What is wrong, and what to do about it.

use boot_core::boot_report::StateProblem;
use boot_core::record::SlotStatus;
use boot_core::store::{CopyHealth, Loaded};
use boot_core::transition::{self, LONG_STREAK};
use boot_core::{Slot, Target};
use profile::kubernetes::Cluster;
use profile::schema::Cidr;
use schemars::JsonSchema;
use serde::Serialize;

use super::facts::Status;
use crate::loader::efi::Variables;
use crate::machine::facts::target_name;
use crate::machine::leases::{self, Given};
use crate::machine::{Machine, clock};
use crate::profile::choose::ChosenProfile;
use crate::service::step::Phase;
use crate::state::owner;

// What is wrong with a profile is a `profile::Problem`, which comes in here as text.
/// Something that is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to do about it.
    pub next: String,
}

/// Finds everything.
pub(super) fn find(
    machine: &Machine,
    loaded: &Loaded,
    status: &Status,
    chosen: Option<&ChosenProfile>,
) -> Vec<Problem> {
    let given = leases::given(&machine.paths());
    let mut problems = match chosen.and_then(|it| it.cluster.as_ref()) {
        Some(cluster) => overlaps(&given, cluster),
        None => Vec::new(),
    };
    let mut add = |what: String, next: &str| {
        problems.push(Problem {
            what,
            next: next.into(),
        })
    };
    if let Some(what) = machine.contradiction() {
        add(
            format!("facts contradict each other: {what}"),
            "restart the machine; nothing is written until then",
        );
    }
    for (copy, health) in loaded.copies.iter().enumerate() {
        if !matches!(health, CopyHealth::Valid { .. }) {
            add(
                format!("copy {copy} of the boot-state record: {health}"),
                "it is written again at the next change; if it comes back, the disk is failing",
            );
        }
    }
    if let Some(handover) = &machine.handover {
        for rejected in &handover.rejected {
            add(
                format!(
                    "the loader did not start {}: {}",
                    rejected.slot, rejected.reason
                ),
                "install an image into that slot: `bootctl install SOURCE`",
            );
        }
        if handover.left_out > 0 {
            add(
                format!(
                    "the loader did not start {} more than firmware had room to name",
                    handover.left_out
                ),
                "see what and why with `bootctl history`",
            );
        }
        if !handover.recorded {
            add(
                "the loader could not record this start".into(),
                "look at the disk: journalctl -k, smartctl",
            );
        }
    }
    if let Some(record) = &loaded.record {
        for slot in Slot::BOTH {
            let entry = record.slot(slot);
            if entry.is_good() && entry.failure_streak >= LONG_STREAK {
                add(
                    format!(
                        "slot {slot} ended {} times before its userland was up",
                        entry.failure_streak
                    ),
                    "`bootctl history` and the console log of those starts; check the power supply",
                );
            }
            if Target::from(slot) != machine.booted && entry.status() == SlotStatus::GivenUp {
                add(
                    format!("slot {slot} (version {}) was given up", entry.version),
                    "`bootctl history` says why; install another version",
                );
            }
            if Target::from(slot) != machine.booted && entry.status() == SlotStatus::Unproven {
                add(
                    format!(
                        "slot {slot} (version {}) is unproven: no start ended in a verdict",
                        entry.version
                    ),
                    "`bootctl activate --now` tries it again; or install another version",
                );
            }
        }
    }
    if machine.booted == Target::Recovery {
        let why = if machine.was_asked_for() {
            "it was asked for; `bootctl reboot` ends it"
        } else {
            "no slot came up"
        };
        // The slot that may be written: one that could still start is not, while nothing else does.
        let free = |slot: &Slot| {
            let record = loaded.record.as_ref();
            record.is_some_and(|it| transition::clear(it, *slot, Target::Recovery).is_ok())
        };
        let slot = Slot::BOTH.into_iter().find(free).unwrap_or(Slot::A);
        add(
            format!("the recovery system is running: {why}"),
            &format!(
                "bootctl install --slot {} --now SOURCE",
                target_name(slot.into())
            ),
        );
    }
    if let Some(fault) = &status.watchdog.timer_fault {
        add(
            format!(
                "firmware faulted when the loader touched the hardware timer ({fault}), and it leaves it alone since: \
                 nothing ends a hang between the loader and the initrd"
            ),
            &format!(
                "an update of the firmware or of the loader has it tried again; or try it once more: \
                 `chattr -i {0} && rm {0}`, then `bootctl reboot`",
                Variables::place_of_timer_fault()
            ),
        );
    }
    if status.floors.as_ref().and_then(|it| it.firmware_known) == Some(false) {
        add(
            "firmware's floors could not be read, or somebody else made them: the record's alone counted in this start"
                .into(),
            "`bootctl reboot`: the loader makes anew what is not its own; if it stays so, firmware's store is failing",
        );
    }
    for (esp, found) in status.esps.each() {
        if let Some(why) = &found.why {
            add(
                format!("{esp}: {why}"),
                "the machine still starts from the other ESP: `bootctl update-loader --copy` writes this one from it",
            );
        }
    }
    let [a, b] = [&status.esps.a, &status.esps.b].map(|esp| esp.loader);
    match &status.loader_update {
        Some(update) => add(
            format!(
                "an update of the loader to version {} is not over: {} is tried at the next start",
                update.version, update.esp
            ),
            "`bootctl reboot`; once a good slot runs from it, the other ESP gets it too",
        ),
        None if a.zip(b).is_some_and(|(a, b)| a != b) => add(
            "esp-a and esp-b hold different loaders".into(),
            "`bootctl update-loader --copy` gives both the one that this machine was started from",
        ),
        None => {}
    }
    for (target, found) in status.headers.each() {
        let expected = match (target.slot(), &loaded.record) {
            (Some(slot), Some(record)) => record.slot(slot).contents().is_some(),
            (None, _) => true,
            _ => false,
        };
        if let (true, Some(why)) = (expected, &found.why) {
            add(
                format!("{target}: {why}"),
                match target {
                    Target::Recovery => {
                        "there is no recovery system to fall back on; write the disk image anew when it is convenient"
                    }
                    _ => "install an image into that slot: `bootctl install SOURCE`",
                },
            );
        }
    }
    if let Some(problem) = status.profile.as_ref().and_then(|it| it.problem.clone()) {
        add(
            problem,
            "`bootctl profile check` says everything that is wrong with it",
        );
    }
    let left_out = status.profile.as_ref().map_or(0, |it| it.left_out.len());
    if left_out > 0 {
        add(
            format!(
                "recovery leaves out {left_out} of the profile's fields and values, which it does not know or which are wrong; up to a hundred are named below"
            ),
            "`bootctl update-recovery` from a good slot, if the profile is newer than recovery; else change the profile",
        );
    }
    if let Some(why) = clock::implausible(&machine.paths()) {
        add(
            why,
            "`bootctl time set`, or give the machine a time server in its profile",
        );
    }
    let state = &status.state;
    for (what, free, all, next) in [
        (
            "bytes",
            state.free,
            state.size,
            "remove what is not needed below /var",
        ),
        (
            "inodes",
            state.free_inodes,
            state.inodes,
            "remove what is not needed below /var: many small files",
        ),
    ] {
        if let (Some(free), Some(all)) = (free, all)
            && all > 0
            && free < all / 20
        {
            add(
                format!("the state filesystem is nearly full: {free} of {all} {what} are free"),
                next,
            );
        }
    }
    let unfit = owner::unfit(machine);
    if let Some(why) = &unfit {
        add(why.clone(), next_for_state(machine));
    }
    let disk_is_read_only = status.disk.as_ref().is_some_and(|disk| disk.read_only);
    let errors = status.state.errors.unwrap_or(0);
    if !disk_is_read_only && errors > 0 {
        add(
            format!(
                "the kernel found an error in the state filesystem, {errors} in all: nothing is kept any more"
            ),
            "journalctl -k says what it was; `bootctl reboot`: the next start checks the filesystem and repairs it. Once it has been up for six hours, the machine restarts by itself",
        );
    }
    if disk_is_read_only {
        add(
            "the disk is read-only: nothing that happens is recorded, and nothing can be installed"
                .into(),
            "look at the disk: journalctl -k, smartctl; a flash disk at its end often does this",
        );
    }
    match &status.health {
        None => add(
            "the service has not said anything in this boot".into(),
            "systemctl status sternpost.service",
        ),
        Some(report) => {
            if report.known.phase == Phase::Healthy
                && let Some(why) = &status.unwell
            {
                add(
                    format!("not well now: {why}"),
                    "`bootctl health` shows what does not hold; the verdict on this version stands",
                );
            }
            for why in report
                .degraded
                .iter()
                .filter(|why| Some(*why) != unfit.as_ref())
            {
                add(
                    format!("degraded: {why}"),
                    "`bootctl health` shows what does not hold",
                );
            }
        }
    }
    problems
}

/// What came by DHCP and belongs to the cluster as well.
fn overlaps(given: &[Given], cluster: &Cluster) -> Vec<Problem> {
    let of_cluster = |it: &Given| cluster.overlaps(&it.network);
    let pairs = given
        .iter()
        .flat_map(|it| of_cluster(it).into_iter().map(move |overlap| (it, overlap)));
    pairs
        .map(|(it, overlap)| {
            let (what, network) = (it.what, it.network);
            let address = network.address();
            let shared = match network == Cidr::single(address) {
                true => format!("{what} {address}, which came by DHCP, is an address"),
                false => format!("{what} {network}, which came by DHCP, holds addresses"),
            };
            let (interface, field) = (&it.interface, overlap.field());
            Problem {
                what: format!("{interface}: {shared} of {overlap}, `kubernetes.{field}`"),
                next: format!(
                    "change what the site's DHCP server gives; before there is a cluster, `{field}` of the profile does, too"
                ),
            }
        })
        .collect()
}

/// What to do about a `state` that nothing is brought up on.
fn next_for_state(machine: &Machine) -> &'static str {
    let boot = &machine.boot;
    match boot.state.problem {
        Some(StateProblem::Missing) => {
            "save what is on the disk and write the disk image anew: no partition can be added"
        }
        Some(StateProblem::Damaged) => {
            "e2fsck -f on the partition repairs what it can, asking; then `bootctl reboot`. To give up what is on it: `bootctl erase-state`"
        }
        Some(StateProblem::Unusable) => {
            "look at the disk (journalctl -k) and restart; what is on it may be whole"
        }
        None if boot.state_missing().is_some() => {
            "`bootctl reboot`; if it stays so, look at /state"
        }
        None => {
            "install that version or a later one. To let this one use what is there, at your own risk, remove /state/sternpost/owner.json and reboot"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_by_dhcp_and_is_in_the_cluster_is_named_with_its_field() {
        let text = "version: 1\nkubernetes: {distribution: kubeadm, role: init}\n";
        let profile = profile::parse(text, "p.yaml").unwrap();
        let cluster = profile.kubernetes.unwrap().cluster();
        let found = |what: &'static str, network: &str| {
            let given = Given {
                interface: "enp1s0".into(),
                what,
                network: network.parse().unwrap(),
            };
            let problems = overlaps(&[given], &cluster);
            problems.into_iter().map(|it| it.what).collect::<Vec<_>>()
        };
        assert_eq!(
            found("the network", "10.42.3.5/16"),
            [
                "enp1s0: the network 10.42.3.5/16, which came by DHCP, holds addresses of the cluster's pods (10.42.0.0/16), `kubernetes.pod_cidr`"
            ]
        );
        assert_eq!(
            found("the gateway", "10.44.0.1/32"),
            [
                "enp1s0: the gateway 10.44.0.1, which came by DHCP, is an address of this machine, which has it inside the cluster, `kubernetes.node_address`"
            ]
        );
        assert_eq!(found("the network", "10.0.0.5/8").len(), 3);
        assert!(found("the DNS server", "9.9.9.9/32").is_empty());
    }
}
