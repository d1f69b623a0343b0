//! The partition table made to fit the disk that it lies on. That it cannot be is recorded, and never ends a start.

use block_file::Access;
use boot_core::boot_report::BootReport;
use boot_core::event::EventKind;
use boot_core::gpt;

use crate::block::{self, partition_name};
use crate::boot_disk::Candidate;
use crate::failure::{Context, Failure};
use crate::{abort, console};

/// Moves the backup table to the end of a larger disk and grows `state`. A failure never ends the start.
pub(crate) fn grow(candidate: &Candidate, report: &mut BootReport) {
    match try_grow(candidate) {
        Ok(grown) => report.grown.gpt = grown,
        Err(failure) => {
            console::announce(failure.reason());
            abort::record(EventKind::STATE_PROBLEM, &failure.reason());
            report.notes.push(failure.reason());
        }
    }
}

fn try_grow(candidate: &Candidate) -> Result<bool, Failure> {
    let disk = format!("/dev/{}", candidate.name);
    let Some(plan) =
        gpt::plan_growth(&candidate.table).context("planning the partition table of", &disk)?
    else {
        return Ok(false);
    };
    let mut device = block::open(&candidate.name, Access::Shared)?;
    gpt::apply(&mut device, &plan.steps).context("growing the partition table of", &disk)?;
    if !plan.restores.is_empty() {
        // With a damaged MBR or primary table, the kernel did not find the partitions.
        if partition_name(&candidate.name, 1).is_none() {
            block::reread_partitions(&device)?;
        }
        let text = format!("damaged, and written again: {}", plan.restores.join(", "));
        console::log(format_args!("{disk}: {text}"));
        abort::record(EventKind::TABLE_REPAIRED, &text);
    }
    let grows = |part: &&gpt::Partition| candidate.table.find("state") != Ok(*part);
    if let Some(part) = plan.state.as_ref().filter(grows) {
        block::resize_partition(&device, part.number, part.start, part.size)?;
        let text = format!(
            "{disk}: partition table fits the disk, state has {} MiB",
            part.size >> 20
        );
        console::log(&text);
        abort::record(EventKind::GROWN, &text);
    }
    Ok(true)
}

/// The table as it is now.
pub(crate) fn reread(candidate: &Candidate) -> gpt::Table {
    block::open(&candidate.name, Access::Read)
        .ok()
        .and_then(|mut device| gpt::read(&mut device).ok())
        .unwrap_or_else(|| candidate.table.clone())
}
