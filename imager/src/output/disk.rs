//! The disk image: layout `ab-1` at the sector size asked for.
//!
//! Slot A holds the image and is on trial, slot B is empty, `boot-r` holds recovery when there is
//! one, `state` is as mkfs left it. The file is sparse: what is zero is not written.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use boot_core::keyring::Chain;
use boot_core::manifest::Manifest;
use boot_core::record::SlotContents;
use boot_core::slot_header::{self, SlotHeader};
use boot_core::store::BootState;
use boot_core::{Device as _, Target, layout, transition};

use crate::output::gpt::{Partition, Table, derived_guid};
use crate::output::image::{Image, Region, copy_file, write_sparse};
use crate::output::state::STATE_SIZE;
use crate::release::authority::Signed;
use crate::workshop::Step;

const MIB: u64 = 1 << 20;

/// A signed image: what goes into one boot slot, with the root beside it, or a loader.
#[derive(Clone, Debug)]
pub struct SlotImage {
    pub manifest: Manifest,
    pub signed: Signed,
    pub chain: Vec<u8>,
    /// The UKI; of a loader, the loader.
    pub uki: PathBuf,
    /// The root filesystem and, in a file of its own, its verity tree; recovery and loaders have none.
    pub root: Option<RootImage>,
}

/// A root filesystem and its tree.
#[derive(Clone, Debug)]
pub struct RootImage {
    pub data: PathBuf,
    /// The tree, as it follows the data.
    pub tree: PathBuf,
}

/// What a disk is made of.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// For slot A.
    pub system: &'a SlotImage,
    /// For `boot-r`.
    pub recovery: Option<&'a SlotImage>,
    /// For both ESPs.
    pub loader: &'a SlotImage,
    pub state: &'a Path,
    /// Slots are this many times what is in them.
    pub headroom: f64,
    /// Bytes in a logical sector.
    pub sector_size: u32,
}

/// The partition table that fits the parts.
pub fn table(parts: &Parts<'_>) -> Result<Table> {
    let manifest = &parts.system.manifest;
    let boot = |image: &SlotImage| -> Result<u64> {
        Ok(slot_header::UKI_OFFSET + slot_size(image.manifest.uki()?.size, parts.headroom))
    };
    let boot_ab = boot(parts.system)?;
    let sizes = layout::Sizes {
        boot: boot_ab,
        recovery: parts.recovery.map_or(Ok(boot_ab), boot)?,
        root: slot_size(
            manifest.root.as_ref().map_or(0, |root| root.size),
            parts.headroom,
        ),
        state: STATE_SIZE,
    };
    let plan = layout::plan(&sizes, parts.sector_size).context("laying out the disk")?;
    let digest = parts.system.signed.digest.to_string();
    let guid = |what: &str| derived_guid(&[what, &manifest.product, &manifest.layout, &digest]);
    let partitions = plan
        .partitions
        .iter()
        .map(|partition| Partition {
            label: partition.label.label().to_owned(),
            kind: partition.label.type_guid(),
            guid: guid(partition.label.label()),
            start: partition.start,
            size: partition.size,
        })
        .collect();
    Ok(Table {
        disk: guid("disk"),
        sector_size: parts.sector_size,
        size: plan.disk_size,
        partitions,
    })
}

/// Headroom applied, rounded up to a MiB.
fn slot_size(content: u64, headroom: f64) -> u64 {
    ((content as f64 * headroom).ceil() as u64)
        .max(content)
        .next_multiple_of(MIB)
}

/// Writes the image to `out`, which nothing else reads or writes meanwhile, and syncs it.
pub fn write(parts: &Parts<'_>, out: &Path) -> Result<Table> {
    let table = table(parts)?;
    let what = || format!("writing the disk image {}", out.display());
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(out)
        .with_context(what)?;
    file.set_len(table.size).with_context(what)?;
    let written = file.try_clone().with_context(what)?;
    let mut image = Image::new(file, parts.sector_size).with_context(what)?;
    table.write(&mut image).with_context(what)?;
    let region = |label: &str| table.region(&image, label);
    let loader = std::fs::read(&parts.loader.uki)
        .with_context(|| format!("reading the loader {}", parts.loader.uki.display()))?;
    for label in ["esp-a", "esp-b"] {
        let mut esp = region(label)?;
        boot_core::esp::write(&mut esp, &loader, parts.system.manifest.architecture)
            .with_context(|| format!("writing {label}"))?;
    }
    copy(&mut region("state")?, "state", parts.state)?;
    write_slot(region("boot-a")?, Target::A, parts.system)?;
    if let Some(recovery) = parts.recovery {
        write_slot(region("boot-r")?, Target::Recovery, recovery)?;
    }
    let root = parts
        .system
        .root
        .as_ref()
        .context("a system image has a root")?;
    let mut root_region = region("root-a")?;
    let data_size = copy(&mut root_region, "root-a", &root.data)?;
    let tree =
        std::fs::read(&root.tree).with_context(|| format!("reading {}", root.tree.display()))?;
    write_sparse(&mut root_region, data_size, &tree)
        .context("writing the verity tree to root-a")?;
    write_boot_state(region("boot-state")?, parts.system.contents()?)?;
    written.sync_all().with_context(what)?;
    Ok(table)
}

/// Packs a disk image: one zstd frame, all cores; its checksum is what it is known by when it is unpacked.
pub fn pack(from: &Path, to: &Path, progress: &Step) -> Result<()> {
    let what = || format!("packing {} as {}", from.display(), to.display());
    let mut source = File::open(from).with_context(what)?;
    progress.total(source.metadata().with_context(what)?.len());
    let target = File::create(to).with_context(what)?;
    let mut encoder = zstd::Encoder::new(target, 9).with_context(what)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    encoder
        .multithread(u32::try_from(workers).unwrap_or(1))
        .with_context(what)?;
    encoder.include_checksum(true).with_context(what)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut buffer).with_context(what)?;
        if length == 0 {
            break;
        }
        encoder.write_all(&buffer[..length]).with_context(what)?;
        progress.advance(length as u64);
    }
    encoder.finish().with_context(what)?;
    Ok(())
}

impl SlotImage {
    /// What the record says of it.
    ///
    /// # Errors
    /// Its keyring chain cannot be read.
    pub fn contents(&self) -> Result<SlotContents> {
        let chain = Chain::read_unverified(&self.chain).context("reading the keyring chain")?;
        let serial = chain.keyring.serial;
        Ok(self.manifest.slot_contents(self.signed.digest, serial))
    }

    /// Bytes of UKI and root.
    #[must_use]
    pub fn size(&self) -> u64 {
        let uki = self.manifest.uki.as_ref().map_or(0, |uki| uki.size);
        uki + self.manifest.root.as_ref().map_or(0, |root| root.size)
    }
}

fn copy(region: &mut Region, label: &str, path: &Path) -> Result<u64> {
    let what = || format!("copying {} to {label}", path.display());
    let file = File::open(path).with_context(what)?;
    copy_file(region, &file).with_context(what)
}

fn write_slot(mut region: Region, target: Target, image: &SlotImage) -> Result<()> {
    let label = target.label_boot();
    let uki_size = image.manifest.uki()?.size;
    let header = SlotHeader::new(
        target,
        image.signed.envelope.len(),
        image.chain.len(),
        uki_size,
        image.signed.digest,
    )
    .with_context(|| format!("manifest, keyring or UKI are too large for {label}"))?;
    header
        .check(region.size())
        .with_context(|| format!("laying out {label}"))?;
    let what = || format!("writing {label}");
    slot_header::write_parts(&mut region, &header, &image.signed.envelope, &image.chain)
        .with_context(what)?;
    let uki =
        std::fs::read(&image.uki).with_context(|| format!("reading {}", image.uki.display()))?;
    ensure!(
        uki.len() as u64 == uki_size,
        "the UKI changed while the image was made"
    );
    write_sparse(&mut region, header.uki_offset, &uki).with_context(what)?;
    slot_header::write_header(&mut region, &header).with_context(what)
}

/// The first record; both rings stay empty.
fn write_boot_state(region: Region, contents: SlotContents) -> Result<()> {
    let record = transition::first_image(contents);
    BootState::new(region)
        .commit(&record)
        .context("writing the boot-state record")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_headroom_in_whole_mebibytes() {
        assert_eq!(slot_size(10 * MIB, 2.5), 25 * MIB);
        assert_eq!(slot_size(10 * MIB + 1, 1.0), 11 * MIB);
        assert_eq!(
            slot_size(10 * MIB, 0.5),
            10 * MIB,
            "never less than what is in it"
        );
    }
}
