//! The report as people read it.

use std::fmt::{self, Display, Formatter};

use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::Value;

use super::disk::EntryReport;
use super::{
    BundleReport, DiskReport, KeyringReport, ManifestReport, Report, SlotReport, StateReport,
};

/// Events shown; the rest is in the JSON.
const EVENTS: usize = 10;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Disk(disk) => disk.to_string(),
            Self::Bundle(bundle) => bundle.to_string(),
        };
        // Names, versions and reasons are whoever's who wrote the disk.
        let orders = |c: char| c.is_control() && c != '\n';
        for piece in text.split_inclusive(orders) {
            let end = piece.chars().next_back().filter(|c| orders(*c));
            f.write_str(piece.strip_suffix(orders).unwrap_or(piece))?;
            end.map_or(Ok(()), |c| write!(f, "{}", c.escape_debug()))?;
        }
        Ok(())
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
                writeln!(
                    f,
                    "  keyring     {} (recovery {})",
                    record.keyring_floor, record.recovery_keyring_floor
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
        match &self.problem {
            Some(problem) => writeln!(f, ": {}", plain(problem))?,
            None => {
                writeln!(f)?;
                self.what_is_known(f)?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "  not read    {}", plain(problem))?;
        }
        Ok(())
    }
}

impl StateReport {
    fn what_is_known(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.owner {
            None => writeln!(f, "  owner       none: no version was marked good here")?,
            Some(owner) => {
                let said = |name: &str| match &owner[name] {
                    Value::String(text) => plain(text),
                    Value::Null => "none".to_owned(),
                    other => plain(&other.to_string()),
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
                    other => writeln!(f, "  owner       {}", plain(&other.to_string()))?,
                }
            }
        }
        for (name, value) in [
            ("host name", &self.host_name),
            ("machine id", &self.machine_id),
        ] {
            if let Some(value) = value {
                writeln!(f, "  {name:<11} {}", plain(value))?;
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
        if let Some(clock) = self.clock {
            writeln!(
                f,
                "  clock       {}",
                day(i64::try_from(clock).unwrap_or(i64::MAX))
            )?;
        }
        match self.ended_cleanly {
            Some(true) => writeln!(f, "  last run    ended in a clean shutdown")?,
            Some(false) => writeln!(f, "  last run    did not end in a clean shutdown")?,
            None => {}
        }
        if let Some(update) = &self.loader_update {
            let update = plain(&update.to_string());
            writeln!(f, "  loader      an update is under way: {update}")?;
        }
        for certificate in &self.certificates {
            let path = plain(&certificate.path);
            match certificate.ends {
                Some(ends) => writeln!(f, "  certificate {path}, until {}", day(ends))?,
                None => writeln!(f, "  certificate {path}: not a certificate")?,
            }
        }
        Ok(())
    }
}

/// A time as people write it, in UTC.
fn day(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{seconds} seconds after 1970"),
    }
}

/// A text as it may go to a terminal, in one line: nothing in it is an order to the terminal, or another line.
fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut done, c| {
        match c {
            '"' | '\'' => done.push(c),
            _ => done.extend(c.escape_debug()),
        }
        done
    })
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
        if let Some(uki) = &manifest.uki {
            let size = HumanBytes(uki.size);
            writeln!(f, "  UKI         {size}, SHA-256 {}", uki.digest)?;
        }
        if let Some(root) = &manifest.root {
            writeln!(
                f,
                "  root        {}, root hash {}",
                HumanBytes(root.size),
                root.hash
            )?;
        }
        for event in &manifest.events {
            let (pcr, what) = (event.pcr, &event.what);
            writeln!(f, "  PCR {pcr:<7} {what}: {}", event.digest)?;
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
            "  keyring     format {}, serial {}, {} link(s), {} of {} signing key(s): {}",
            self.format,
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
        assert!(day(i64::MAX).contains("seconds after 1970"));
    }

    #[test]
    fn a_manifest_shows_what_it_names_and_nothing_else() {
        let shown = |name: &str| {
            let root = std::path::Path::new(env!("STERNPOST_SOURCE"));
            let json = std::fs::read(root.join("docs/formats/vectors").join(name)).unwrap();
            let report = ManifestReport {
                digest: boot_core::Digest::of(&json),
                manifest: boot_core::manifest::Manifest::parse(&json).unwrap(),
                signed_by: Vec::new(),
            };
            report.to_string()
        };
        let events = shown("manifest-events.json");
        assert!(events.contains("\n  UKI "), "{events}");
        assert!(events.contains("\n  PCR 4       UKI: "), "{events}");
        assert!(
            events.contains("\n  PCR 11      enter-initrd: "),
            "{events}"
        );
        let content = shown("manifest-content.json");
        assert!(
            content.contains("(content)") && content.contains("\n  root "),
            "{content}"
        );
        assert!(
            !content.contains("UKI") && !content.contains("PCR"),
            "{content}"
        );
    }

    #[test]
    fn what_a_machine_left_is_no_order_to_the_terminal() {
        let evil = "a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\nstate: \"fine\"";
        let report = StateReport {
            problems: vec![evil.to_owned()],
            owner: Some(serde_json::json!({"version": evil, "kubernetes": [evil]})),
            host_name: Some(evil.to_owned()),
            machine_id: Some(evil.to_owned()),
            loader_update: Some(Value::String(evil.to_owned())),
            certificates: vec![crate::inspect::CertificateReport {
                path: evil.to_owned(),
                ends: None,
            }],
            ..StateReport::default()
        };
        let text = report.to_string();
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(
            !text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'),
            "{text:?}"
        );
        assert!(text.contains(r#"host name   a\u{1b}]0;x"#), "{text}");
    }
}
