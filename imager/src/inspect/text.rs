//! The report as people read it.

use std::fmt::{self, Display, Formatter};

use indicatif::HumanBytes;
use serde_json::Value;

use super::disk::EntryReport;
use super::{
    BundleReport, DiskReport, KeyringReport, ManifestReport, Report, SlotReport, StateReport,
};

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
        match &self.state {
            Some(state) => state.fmt(f),
            None => Ok(()),
        }
    }
}

impl Display for StateReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\nstate")?;
        if let Some(problem) = &self.problem {
            return writeln!(f, ": {problem}");
        }
        writeln!(f)?;
        match &self.owner {
            None => writeln!(f, "  owner       none: no version was marked good here")?,
            Some(owner) => {
                let said = |name: &str| match &owner[name] {
                    Value::String(text) => text.clone(),
                    Value::Null => "none".to_owned(),
                    other => other.to_string(),
                };
                match owner {
                    Value::Object(_) => writeln!(
                        f,
                        "  owner       version {}, state epoch {}, Kubernetes {}, manifest {}",
                        said("version"),
                        said("state_epoch"),
                        said("kubernetes"),
                        short(&said("manifest"))
                    )?,
                    other => writeln!(f, "  owner       {other}")?,
                }
            }
        }
        for (name, value) in [
            ("host name", &self.host_name),
            ("machine id", &self.machine_id),
        ] {
            if let Some(value) = value {
                writeln!(f, "  {name:<11} {value}")?;
            }
        }
        for profile in &self.profiles {
            writeln!(
                f,
                "  profile     {}, SHA-256 {}",
                profile.file,
                short(&profile.sha256.to_string())
            )?;
        }
        if let Some(clock) = self.clock.and_then(|clock| i64::try_from(clock).ok()) {
            writeln!(f, "  clock       {}", day(clock))?;
        }
        match self.ended_cleanly {
            Some(true) => writeln!(f, "  last run    ended in a clean shutdown")?,
            Some(false) => writeln!(f, "  last run    did not end in a clean shutdown")?,
            None => {}
        }
        if let Some(update) = &self.loader_update {
            writeln!(f, "  loader      an update is under way: {update}")?;
        }
        for certificate in &self.certificates {
            match certificate.ends {
                Some(ends) => {
                    writeln!(f, "  certificate {}, until {}", certificate.path, day(ends))?
                }
                None => writeln!(f, "  certificate {}: not a certificate", certificate.path)?,
            }
        }
        Ok(())
    }
}

/// A time as people write it, in UTC: the proleptic Gregorian calendar in years that begin in March.
fn day(seconds: i64) -> String {
    let (days, time) = (
        seconds.div_euclid(86_400) + 719_468,
        seconds.rem_euclid(86_400),
    );
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    let (hours, minutes) = (time / 3600, time / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02} UTC")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_827_696, "2000-02-29 12:34 UTC"),
            (2_111_456_051, "2036-11-28 03:34 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (-1, "1969-12-31 23:59 UTC"),
        ] {
            assert_eq!(day(seconds), expected);
        }
    }
}
