//! The report as people read it.

use std::fmt::{self, Display, Formatter};

use indicatif::HumanBytes;

use super::disk::EntryReport;
use super::{BundleReport, DiskReport, KeyringReport, ManifestReport, Report, SlotReport};

/// Events shown; the rest is in the JSON.
const EVENTS: usize = 10;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(disk) => disk.fmt(f),
            Self::Bundle(bundle) => bundle.fmt(f),
        }
    }
}

impl Display for DiskReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        writeln!(
            f,
            "Disk image, {}, {}-byte sectors, disk {}",
            HumanBytes(table.size),
            table.sector_size,
            table.disk
        )?;
        writeln!(f, "\nPartitions")?;
        for partition in &table.partitions {
            let start = HumanBytes(partition.start).to_string();
            let size = HumanBytes(partition.size).to_string();
            writeln!(
                f,
                "  {:<11} at {start:>11}  {size:>11}  {}",
                partition.label, partition.guid
            )?;
        }
        if let Some(state) = &self.boot_state {
            writeln!(f, "\nBoot state")?;
            for (n, copy) in state.copies.iter().enumerate() {
                writeln!(f, "  copy {n}      {copy}")?;
            }
            if let Some(record) = &state.record {
                entry(f, "slot A", &record.a)?;
                entry(f, "slot B", &record.b)?;
                let none = || "none".to_owned();
                writeln!(
                    f,
                    "  last tried  {}",
                    record.last_tried.clone().unwrap_or_else(none)
                )?;
                writeln!(
                    f,
                    "  one-shot    {}",
                    record.one_shot.clone().unwrap_or_else(none)
                )?;
                writeln!(
                    f,
                    "  floor       {} (recovery {})",
                    record.floor, record.recovery_floor
                )?;
            }
            for entry in &state.quarantine {
                writeln!(
                    f,
                    "  quarantined {}: {}",
                    short(&entry.manifest_digest),
                    entry.reason
                )?;
            }
            let skipped = state.events.len().saturating_sub(EVENTS);
            if skipped > 0 {
                writeln!(f, "  events      {skipped} older ones not shown")?;
            }
            for event in state.events.iter().skip(skipped) {
                let slot = event.slot.as_deref().unwrap_or("-");
                writeln!(
                    f,
                    "  event {:<5} {} {slot} {}: {}",
                    event.sequence, event.stage, event.kind, event.text
                )?;
            }
        }
        for slot in &self.slots {
            writeln!(f)?;
            slot.fmt(f)?;
        }
        Ok(())
    }
}

fn entry(f: &mut Formatter<'_>, name: &str, entry: &EntryReport) -> fmt::Result {
    if entry.version.is_empty() {
        return writeln!(f, "  {name}      {}", entry.status);
    }
    writeln!(
        f,
        "  {name}      {}, version {}, priority {}, {} tries left, failure streak {}, manifest {}",
        entry.status,
        entry.version,
        entry.priority,
        entry.tries,
        entry.failure_streak,
        short(&entry.manifest_digest)
    )
}

impl Display for SlotReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.label)?;
        match (&self.manifest, &self.keyring) {
            _ if self.empty => writeln!(f, ": empty"),
            (Some(manifest), Some(keyring)) => {
                writeln!(f)?;
                manifest.fmt(f)?;
                keyring.fmt(f)
            }
            _ => writeln!(
                f,
                ": {}",
                self.problem.as_deref().unwrap_or("cannot be read")
            ),
        }
    }
}

impl Display for BundleReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle, {}", HumanBytes(self.size))?;
        if self.size == self.expected_size {
            writeln!(f)?;
        } else {
            writeln!(
                f,
                ", but it should have {} bytes and has {}",
                self.expected_size, self.size
            )?;
        }
        writeln!(
            f,
            "  frames      {} of the UKI, {} of the root, {} of them zero, {}",
            self.uki_frames,
            self.root_frames,
            self.zero_frames,
            HumanBytes(self.frames_size)
        )?;
        self.manifest.fmt(f)?;
        self.keyring.fmt(f)
    }
}

impl Display for ManifestReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(
            f,
            "  image       {} {} ({}) for {}, layout {}",
            manifest.product,
            manifest.version,
            manifest.kind,
            manifest.architecture,
            manifest.layout
        )?;
        writeln!(
            f,
            "  security    version {}, state epoch {}",
            manifest.security_version, manifest.state_epoch
        )?;
        write!(f, "  contents    kernel {}", manifest.contents.kernel)?;
        if let Some(kubernetes) = &manifest.contents.kubernetes {
            write!(
                f,
                ", Kubernetes {} ({})",
                kubernetes.version, kubernetes.distribution
            )?;
        }
        writeln!(f, ", VM runtime {}", manifest.contents.vm)?;
        writeln!(
            f,
            "  UKI         {}, SHA-256 {}",
            HumanBytes(manifest.uki.size),
            manifest.uki.digest
        )?;
        if let Some(root) = &manifest.root {
            writeln!(
                f,
                "  root        {}, root hash {}",
                HumanBytes(root.size),
                root.hash
            )?;
        }
        writeln!(
            f,
            "  built       by {} from {}",
            manifest.build.tool, manifest.build.recipe
        )?;
        writeln!(f, "  manifest    {}", self.digest)?;
        writeln!(f, "  signed by   {}", self.signed_by.join(", "))
    }
}

impl Display for KeyringReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  keyring     serial {}, {} link(s), {} of {} signing key(s): {}",
            self.serial,
            self.links,
            self.threshold,
            self.signing.len(),
            self.signing.join(", ")
        )
    }
}

/// Enough of a digest to tell it from others.
fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}
