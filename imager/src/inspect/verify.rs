//! Checks a disk image or bundle as machines will: signatures, the UKI's digest, every byte of root.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use boot_core::bundle::WINDOW_LOG_MAX;
use boot_core::floor::{Floors, Level};
use boot_core::keyring::KeySet;
use boot_core::manifest::{CHUNK_SIZE, Kind, Manifest, Root, Uki};
use boot_core::slot_header::{self, HeaderError, ReadSlotError};
use boot_core::store::BootState;
use boot_core::trust::Trust;
use boot_core::verify::{Expect, Verified, Verify as _, verify_manifest};
use boot_core::verity::{BlockHasher, TreeBuilder};
use boot_core::{Architecture, Device as _, Digest, Slot, Target, esp};
use serde::Serialize;

use crate::boot::stub::ensure_deaf;
use crate::inspect::{BundleFile, FileKind, ManifestReport, kind_of};
use crate::output::gpt;
use crate::output::image::{Image, Region};
use crate::output::verity::in_chunks;

#[derive(Clone, Debug)]
pub enum Authority {
    /// A complete root of trust, as the loader has it.
    Trust(Trust),
    /// Root keys alone: product, architecture and layout may be any.
    Root(KeySet),
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub what: String,
    /// Whether it is as it must be.
    pub good: bool,
    pub found: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Checks {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Checks {
    #[must_use]
    pub fn good(&self) -> bool {
        self.checks.iter().all(|check| check.good)
    }

    /// What was opened; none, and a check that failed, where it is damaged so far that nothing else can be looked at.
    fn opened<T>(&mut self, what: &str, opened: Result<T>) -> Result<Option<T>> {
        match opened {
            Ok(opened) => Ok(Some(opened)),
            // What could not be read may be whole.
            Err(error) if error.chain().any(|it| it.is::<io::Error>()) => Err(error),
            Err(error) => {
                self.add(what, Err(error));
                Ok(None)
            }
        }
    }

    fn add(&mut self, what: impl Into<String>, result: Result<String>) {
        let good = result.is_ok();
        let found = result.unwrap_or_else(|error| format!("{error:#}"));
        let what = what.into();
        self.checks.push(Check { what, good, found });
    }
}

impl Authority {
    /// The trust that a manifest has to meet; with root keys alone it takes what the manifest claims.
    fn trust(&self, envelope: &[u8]) -> Result<Trust> {
        match self {
            Self::Trust(trust) => Ok(trust.clone()),
            Self::Root(root) => {
                let claimed = ManifestReport::read(envelope)?.manifest;
                Ok(Trust {
                    format: root.format().number(),
                    product: claimed.product,
                    architecture: claimed.architecture,
                    layout: claimed.layout,
                    root: root.clone(),
                    former_root: None,
                })
            }
        }
    }
}

/// Checks a file.
///
/// # Errors
/// It cannot be read at all; what is wrong inside is in the result.
pub fn verify(path: &Path, authority: &Authority) -> Result<Checks> {
    match kind_of(path)? {
        FileKind::Bundle => bundle(path, authority),
        FileKind::Disk => disk(path, authority),
    }
}

fn bundle(path: &Path, authority: &Authority) -> Result<Checks> {
    let mut checks = Checks::default();
    let Some(bundle) = checks.opened("bundle", BundleFile::open(path))? else {
        return Ok(checks);
    };
    let verified = authority
        .trust(&bundle.envelope)
        .and_then(|trust| Ok(verify_manifest(&trust, &bundle.envelope, &bundle.keyring)?));
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => {
            checks.add("manifest", Err(error));
            return Ok(checks);
        }
    };
    checks.add("manifest", Ok(summary(&verified)));
    checks.add("parts", parts(&bundle, &verified.manifest));
    if checks.good() {
        if let Some(uki) = &verified.manifest.uki {
            let payload = bundle_uki(&bundle, uki);
            match verified.manifest.kind {
                Kind::Loader => checks.add(
                    "loader",
                    payload.and_then(|bytes| Ok(trusted(&bytes, authority)?.summary())),
                ),
                _ => checks.add(
                    "UKI",
                    payload.and_then(|bytes| {
                        ensure_deaf(&bytes)?;
                        Ok(size_and_digest(&bytes))
                    }),
                ),
            }
        }
        if let Some(root) = &verified.manifest.root {
            checks.add("root", bundle_root(&bundle, root));
        }
    }
    Ok(checks)
}

fn summary(verified: &Verified) -> String {
    let manifest = &verified.manifest;
    format!(
        "{} {} ({}) for {}, signed as the keyring asks",
        manifest.product, manifest.version, manifest.kind, manifest.architecture
    )
}

fn parts(bundle: &BundleFile, manifest: &Manifest) -> Result<String> {
    bundle.header.check_against(manifest)?;
    let (size, expected) = (bundle.file.metadata()?.len(), bundle.expected_size());
    ensure!(
        size == expected,
        "the file has {size} bytes, by its frame table it should have {expected}"
    );
    Ok(format!("{} frames", bundle.table.lengths().len()))
}

/// The UKI, or the loader, once every byte of it is known to be what was signed.
fn bundle_uki(bundle: &BundleFile, uki: &Uki) -> Result<Vec<u8>> {
    let chunks = in_chunks(uki.size, |offset, length| {
        let n = u32::try_from(offset / CHUNK_SIZE)?;
        let chunk = unpack(bundle, n, length)?;
        let expected = uki
            .chunks
            .get(n as usize)
            .context("a chunk that the manifest does not name")?;
        ensure!(
            Digest::of(&chunk) == *expected,
            "chunk {n} does not have the digest that the manifest names"
        );
        Ok(chunk)
    })?;
    let bytes = chunks.concat();
    ensure!(
        Digest::of(&bytes) == uki.digest,
        "its digest is not the manifest's"
    );
    Ok(bytes)
}

fn size_and_digest(bytes: &[u8]) -> String {
    format!("{} bytes, digest {}", bytes.len(), Digest::of(bytes))
}

fn bundle_root(bundle: &BundleFile, root: &Root) -> Result<String> {
    let hash =
        TreeBuilder::root_of(&root.salt, &bundle.leaves).context("there are no verity leaves")?;
    ensure!(
        hash == root.hash,
        "the verity leaves do not belong to the manifest's root hash"
    );
    let hasher = BlockHasher::new(&root.salt);
    in_chunks(root.data_size, |offset, length| {
        let n = u32::try_from(offset / CHUNK_SIZE)?;
        let chunk = unpack(bundle, bundle.header.uki_frames + n, length)?;
        let first = usize::try_from(offset / 4096 * 32)?;
        let leaves = bundle
            .leaves
            .get(first..first + length / 4096 * 32)
            .context("too few verity leaves")?;
        hasher
            .check_run(leaves, &chunk)
            .with_context(|| format!("chunk {n} of the root"))
    })?;
    Ok(format!("{} bytes, root hash {hash}", root.data_size))
}

/// A frame's content, which must be exactly `length` bytes within the window that machines allow.
fn unpack(bundle: &BundleFile, index: u32, length: usize) -> Result<Vec<u8>> {
    let frame = bundle.frame(index)?;
    if frame.is_empty() {
        return Ok(vec![0; length]);
    }
    let what = || format!("unpacking frame {index}");
    let mut decoder = zstd::bulk::Decompressor::new().with_context(what)?;
    decoder
        .set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX))
        .with_context(what)?;
    let chunk = decoder.decompress(&frame, length).with_context(what)?;
    ensure!(
        chunk.len() == length,
        "frame {index} holds {} bytes, expected {length}",
        chunk.len()
    );
    Ok(chunk)
}

fn disk(path: &Path, authority: &Authority) -> Result<Checks> {
    let mut checks = Checks::default();
    let Some((image, table)) = checks.opened("disk image", gpt::open(path))? else {
        return Ok(checks);
    };
    checks.add("partition table", whole_table(&image));
    let region = |label: &str| table.region(&image, label);
    let record = region("boot-state").and_then(|region| {
        BootState::new(region)
            .load()
            .record
            .context("neither copy of the boot-state record is valid")
    });
    let floors = record
        .as_ref()
        .map_or_else(|_| Floors::default(), |record| record.floors);
    checks.add("ESPs", esps(&region, authority));
    for target in Target::ALL {
        let label = target.label_boot();
        let boot = match region(label) {
            Ok(boot) => boot,
            Err(error) => {
                checks.add(label, Err(error));
                continue;
            }
        };
        let verified = match slot(boot, target, floors.of(target), authority) {
            Ok(Some(verified)) => verified,
            Ok(None) => {
                checks.add(label, Ok("empty".to_owned()));
                continue;
            }
            Err(error) => {
                checks.add(label, Err(error));
                continue;
            }
        };
        checks.add(label, Ok(summary(&verified)));
        if let (Some(slot), Some(root)) = (target.slot(), &verified.manifest.root) {
            let label = slot.label_root();
            checks.add(
                label,
                region(label).and_then(|region| disk_root(region, root)),
            );
            if let Ok(record) = &record {
                let known = record.slot(slot).digest == verified.digest;
                checks.add(format!("record of slot {slot}"), about(known));
            }
        }
    }
    checks.add("boot-state record", record.map(|record| describe(&record)));
    Ok(checks)
}

/// The backup lies in the last block, so that a file that is cut short has none.
fn whole_table(image: &Image) -> Result<String> {
    let table = boot_core::gpt::read(&mut image.clone())?;
    ensure!(
        table.is_whole(),
        "the protective MBR or one of its copies is missing or damaged; the file has {} bytes, and may be cut short",
        image.size()
    );
    Ok("both copies are valid".to_owned())
}

fn about(known: bool) -> Result<String> {
    ensure!(known, "it is about another image than the slot holds");
    Ok("about the image that the slot holds".to_owned())
}

fn describe(record: &boot_core::record::Record) -> String {
    format!(
        "sequence {}, slot A {}, slot B {}",
        record.sequence,
        record.slot(Slot::A).status(),
        record.slot(Slot::B).status()
    )
}

/// The same loader on both, and one that these keys go with. What else is in an ESP's free blocks is of no account: one
/// that was written in the field has remains of what was there before.
fn esps(region: &impl Fn(&str) -> Result<Region>, authority: &Authority) -> Result<String> {
    let on = |label: &str| -> Result<Vec<u8>> {
        let mut region = region(label)?;
        let found =
            Architecture::ALL.map(|architecture| esp::read_loader(&mut region, architecture));
        match found {
            [Ok(loader), _] | [_, Ok(loader)] => Ok(loader),
            [Err(error), _] => Err(error).with_context(|| label.to_owned()),
        }
    };
    let (a, b) = (on("esp-a")?, on("esp-b")?);
    let trust = trusted(&a, authority)?;
    ensure!(a == b, "esp-a and esp-b hold different loaders");
    Ok(format!("the same loader in both: {}", trust.summary()))
}

/// The root of trust of a loader, which must be the one that is checked against.
fn trusted(loader: &[u8], authority: &Authority) -> Result<Trust> {
    let trust = Trust::from_intact_program(loader)?;
    let same = match authority {
        Authority::Trust(expected) => trust == *expected,
        Authority::Root(root) => trust.root == *root,
    };
    ensure!(same, "the loader trusts other keys: {}", trust.summary());
    Ok(trust)
}

fn slot(
    mut boot: Region,
    target: Target,
    floor: Level,
    authority: &Authority,
) -> Result<Option<Verified>> {
    let parts = match slot_header::read_slot(&mut boot) {
        Ok(parts) => parts,
        Err(ReadSlotError::Header(HeaderError::Empty)) => return Ok(None),
        Err(error) => return Err(error).context("reading the slot"),
    };
    let trust = authority.trust(&parts.envelope)?;
    let expect = Expect { target, floor };
    // The manifest first, so that no more is read than a signed manifest says.
    let verified = trust.verify(&parts, &expect)?;
    let mut uki = vec![0; usize::try_from(parts.header.uki_length)?];
    boot.read_at(parts.header.uki_offset, &mut uki)
        .context("reading the UKI")?;
    verified.check_uki(&Digest::of(&uki))?;
    ensure_deaf(&uki).context("the UKI")?;
    Ok(Some(verified))
}

fn disk_root(mut region: Region, root: &Root) -> Result<String> {
    let hasher = BlockHasher::new(&root.salt);
    let leaves = in_chunks(root.data_size, |offset, length| {
        let mut chunk = vec![0; length];
        region.clone().read_at(offset, &mut chunk)?;
        let mut leaves = Vec::new();
        hasher.append_leaves(&chunk, &mut leaves);
        Ok(leaves)
    })?
    .concat();
    let mut builder = TreeBuilder::new(&root.salt);
    builder.push(&leaves);
    let tree = builder.finish().context("an empty root")?;
    ensure!(
        tree.root == root.hash,
        "its root hash is {}, the manifest says {}",
        tree.root,
        root.hash
    );
    let expected = tree.to_bytes(&leaves);
    let mut found = vec![0; expected.len()];
    region
        .read_at(root.data_size, &mut found)
        .context("reading the verity tree")?;
    ensure!(
        found == expected,
        "the data is right, the verity tree beside it is not"
    );
    Ok(format!("{} bytes, root hash {}", root.data_size, root.hash))
}

#[cfg(test)]
mod tests {
    use boot_core::test_support::{self, Signers, keyring_chain_v2, trust_v2};

    use super::*;
    use crate::inspect::KeyringReport;
    use crate::release::authority::read_root;

    #[test]
    fn keys_of_both_formats_are_read() {
        let image = test_support::Image::new(Kind::System, "1", 1);
        let both = image.clone().with_keys_v2();
        let chain = test_support::keyring_chain(Signers::default());
        let formats = [
            (1, test_support::trust(), chain, image),
            (2, trust_v2(), keyring_chain_v2(), both),
        ];
        for (format, trust, chain, image) in formats {
            assert_eq!(KeyringReport::read(&chain).unwrap().format, format);
            let directory = tempfile::tempdir().unwrap();
            let json = serde_json::to_vec(&trust.root).unwrap();
            std::fs::write(directory.path().join("root.json"), json).unwrap();
            let authority = Authority::Root(read_root(directory.path()).unwrap());
            let claimed = authority.trust(&image.envelope).unwrap();
            assert_eq!(claimed, trust);
            verify_manifest(&claimed, &image.envelope, &image.keyring).unwrap();
        }
    }
}
