//! Which disk this start came from.
//!
//! Labels never choose the disk. The loader wrote a fresh nonce into the boot-state record of the disk that it was
//! started from, so the disk whose newest record carries the nonce of the hand-over is the one, even among two disks of
//! one image. Only if the loader could not write (`recorded` is false) must the disk's GUID decide as well.

use std::time::{Duration, Instant};

use block_file::{Access, BlockFile};
use boot_core::gpt::{self, FindError, Table};
use boot_core::layout::Label;
use boot_core::store::BootState;
use boot_core::{Device, Nonce, Window};

use crate::block;
use crate::console;
use crate::drivers::Drivers;
use crate::failure::Failure;
use crate::hardware;
use crate::start::Start;

/// Longest time to wait for the disk: slow controllers and USB need seconds to spin up.
const DISK_LIMIT: Duration = Duration::from_secs(30);
/// The same for recovery, which can do without.
const DISK_LIMIT_RECOVERY: Duration = Duration::from_secs(10);
/// Longest wait between two looks, should an announcement be lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a disk says about itself.
#[derive(Debug)]
pub struct Candidate {
    /// The kernel's name.
    pub name: String,
    /// GUID of its partition table, lower case.
    pub guid: String,
    /// Nonce of its newest boot-state record.
    pub nonce: Option<Nonce>,
    pub table: Table,
}

/// What identifies the disk in the hand-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Nonce of this start, or the last one that is on the disk.
    pub nonce: Nonce,
    /// Whether the loader could write it.
    pub recorded: bool,
    /// GUID of the disk, lower case.
    pub guid: String,
}

/// Outcome of [`choose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The index of the one.
    Found(usize),
    /// None fits; one may still appear.
    NoneFits,
    /// Several fit.
    Ambiguous(Vec<usize>),
}

/// Chooses among `(nonce, guid)` of each disk. Pure.
#[must_use]
pub fn choose(disks: &[(Option<Nonce>, &str)], wanted: &Wanted) -> Choice {
    let fits = |by_nonce: bool, by_guid: bool| -> Vec<usize> {
        disks
            .iter()
            .enumerate()
            .filter(|(_, (nonce, guid))| {
                (!by_nonce || *nonce == Some(wanted.nonce))
                    && (!by_guid || guid.eq_ignore_ascii_case(&wanted.guid))
            })
            .map(|(index, _)| index)
            .collect()
    };
    let mut found = Vec::new();
    if !wanted.nonce.is_zero() {
        found = fits(true, !wanted.recorded);
        if found.len() > 1 {
            found = fits(true, true);
        }
    }
    if found.is_empty() && !wanted.recorded {
        // Its record may be the very thing that could not be read or written.
        found = fits(false, true);
    }
    match found.as_slice() {
        [] => Choice::NoneFits,
        [one] => Choice::Found(*one),
        _ => Choice::Ambiguous(found),
    }
}

/// Reads what a disk says about itself; `None` for a disk without a table.
#[must_use]
pub fn probe(name: &str) -> Option<Candidate> {
    let mut device = block::open(name, Access::Read).ok()?;
    let table = gpt::read(&mut device).ok()?;
    let nonce = match table.find(Label::BootState.label()) {
        Ok(partition) => BootState::new(Window::partition(&mut device, partition))
            .load()
            .record
            .map(|record| record.nonce),
        // The loader starts slots of such a disk too, as the last resort: its GUID has to do.
        Err(FindError::Missing(_) | FindError::Ambiguous(_) | FindError::BeyondDisk(_)) => None,
    };
    Some(Candidate {
        name: name.to_owned(),
        guid: table.disk_guid.to_string(),
        nonce,
        table,
    })
}

/// Looks at all disks there are now.
///
/// # Errors
/// When several disks fit and nothing tells them apart.
pub fn find(wanted: &Wanted) -> Result<Option<Candidate>, Failure> {
    let mut disks: Vec<Candidate> = hardware::disks()
        .iter()
        .filter_map(|(name, _)| probe(name))
        .collect();
    let facts: Vec<(Option<Nonce>, &str)> = disks
        .iter()
        .map(|disk| (disk.nonce, disk.guid.as_str()))
        .collect();
    match choose(&facts, wanted) {
        Choice::Found(index) => Ok(Some(disks.swap_remove(index))),
        Choice::NoneFits => Ok(None),
        Choice::Ambiguous(indices) => {
            let names: Vec<&str> = indices
                .iter()
                .filter_map(|index| Some(disks.get(*index)?.name.as_str()))
                .collect();
            Err(Failure::new(
                "choosing the disk among",
                names.join(", "),
                "they are copies of one another, and the loader could not mark the one that it started from",
            )
            .next("remove all but one; the machine restarts"))
        }
    }
}

/// Waits for the disk that this start came from.
pub(crate) fn wait_for(drivers: &mut Drivers, start: &Start) -> Result<Option<Candidate>, Failure> {
    let wanted = Wanted {
        nonce: start.hand_over.nonce,
        recorded: start.hand_over.recorded,
        guid: start.hand_over.disk.clone(),
    };
    let limit = if start.is_recovery() {
        DISK_LIMIT_RECOVERY
    } else {
        DISK_LIMIT
    };
    let deadline = Instant::now() + limit;
    loop {
        // The wait has a limit of its own, which may be longer than the watchdog's time.
        drivers.ping();
        // A nonce that was written for this start is on one disk alone. Otherwise all disks have to be seen.
        let found = drivers
            .look(|| {
                if wanted.recorded {
                    find(&wanted)
                } else {
                    Ok(None)
                }
            })
            .and_then(|found| match found {
                Some(candidate) => Ok(Some(candidate)),
                None => find(&wanted),
            });
        match found {
            Ok(Some(candidate)) => return Ok(Some(candidate)),
            Ok(None) => {}
            Err(failure) if start.is_recovery() => {
                console::announce(failure.reason());
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return no_disk(start, &wanted, limit);
        }
        drivers.wait(left.min(LOOK_AGAIN));
    }
}

fn no_disk(start: &Start, wanted: &Wanted, limit: Duration) -> Result<Option<Candidate>, Failure> {
    let disks: Vec<String> = hardware::disks()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let there = if disks.is_empty() {
        "no disk at all".to_owned()
    } else {
        disks.join(", ")
    };
    let failure = Failure::new(
        "looking for",
        "the disk that this start came from",
        format!(
            "after {} s there is {there}, and none has the nonce {} in its boot state (disk {})",
            limit.as_secs(),
            wanted.nonce,
            wanted.guid
        ),
    );
    if start.is_recovery() {
        console::announce(failure.reason());
        return Ok(None);
    }
    Err(failure)
}

/// Runs `f` on the boot-state partition of a disk.
pub fn with_boot_state<T>(
    device: &mut BlockFile,
    table: &Table,
    f: impl FnOnce(&mut BootState<Window<&mut BlockFile>>) -> T,
) -> Option<T> {
    let partition = table.find(Label::BootState.label()).ok()?;
    Some(f(&mut BootState::new(Window::partition(device, partition))))
}

/// Reads the first `length` bytes of a partition, rounded up to whole blocks.
pub fn read_start<D: Device>(device: &mut D, length: usize) -> Result<Vec<u8>, D::Error> {
    let block = device.block_size() as usize;
    let mut bytes = vec![0; length.next_multiple_of(block.max(1))];
    device.read_at(0, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Nonce = Nonce([7; 16]);
    const OTHER: Nonce = Nonce([9; 16]);

    fn wanted(recorded: bool) -> Wanted {
        Wanted {
            nonce: MINE,
            recorded,
            guid: "aa".into(),
        }
    }

    #[test]
    fn the_nonce_decides_between_two_disks_of_one_image() {
        let disks = [(Some(OTHER), "aa"), (Some(MINE), "aa"), (None, "aa")];
        assert_eq!(choose(&disks, &wanted(true)), Choice::Found(1));
    }

    #[test]
    fn the_guid_decides_between_equal_nonces() {
        let disks = [(Some(MINE), "bb"), (Some(MINE), "AA")];
        assert_eq!(choose(&disks, &wanted(true)), Choice::Found(1));
        assert_eq!(choose(&disks, &wanted(false)), Choice::Found(1));
    }

    #[test]
    fn a_recorded_start_never_takes_a_disk_without_its_nonce() {
        assert_eq!(
            choose(&[(Some(OTHER), "aa"), (None, "aa")], &wanted(true)),
            Choice::NoneFits
        );
    }

    #[test]
    fn an_unrecorded_start_goes_by_the_guid() {
        assert_eq!(
            choose(&[(None, "bb"), (None, "aa")], &wanted(false)),
            Choice::Found(1)
        );
        let zero = Wanted {
            nonce: Nonce::ZERO,
            ..wanted(false)
        };
        assert_eq!(
            choose(
                &[(Some(Nonce::ZERO), "bb"), (Some(Nonce::ZERO), "aa")],
                &zero
            ),
            Choice::Found(1)
        );
    }

    #[test]
    fn clones_that_nothing_tells_apart_are_refused() {
        assert_eq!(
            choose(&[(None, "aa"), (None, "aa")], &wanted(false)),
            Choice::Ambiguous(vec![0, 1])
        );
        assert_eq!(
            choose(&[(Some(MINE), "aa"), (Some(MINE), "aa")], &wanted(true)),
            Choice::Ambiguous(vec![0, 1])
        );
    }
}
