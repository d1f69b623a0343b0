//! The front of a bundle: everything that says whether it may be installed, before what is large.

use boot_core::bundle::{BundleError, FrameTable, HEADER_SIZE, Header, MAGIC};
use boot_core::floor::Level;
use boot_core::manifest::{Kind, Manifest, Place, Uki};
use boot_core::record::SlotContents;
use boot_core::slot_header::UKI_OFFSET;
use boot_core::verify::{Rejected, verify_manifest};
use boot_core::verity::TreeBuilder;
use boot_core::{Digest, KeyringSerial};

use super::leaves::Leaves;
use crate::boot::admission::Admission;
use crate::boot::control::not_admitted;
use crate::failure::{Code, Failure, Result};
use crate::os::clock;
use crate::source::Source;

/// What is read at a time.
const STEP: usize = 256 * 1024;

/// The front of a bundle, verified.
pub(crate) struct BundleFront {
    pub header: Header,
    /// The manifest's envelope, to the byte.
    pub envelope: Vec<u8>,
    /// The keyring chain, to the byte.
    pub keyring: Vec<u8>,
    /// What was signed.
    pub manifest: Manifest,
    /// The manifest's; of a loader, the loader.
    pub uki: Uki,
    pub digest: Digest,
    /// Serial of the keyring that it was signed under.
    pub serial: KeyringSerial,
    /// Where the frames are.
    pub table: FrameTable,
}

/// What a bundle has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// A system, recovery or a loader.
    pub kind: Kind,
    /// Nothing below this, and nothing too far above it.
    pub floor: Level,
    /// What it has to fit.
    pub room: Room,
    /// The time, in Unix seconds.
    pub now: i64,
}

/// What a bundle has to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes of the boot partition.
    pub boot: u64,
    /// Bytes of the root partition.
    pub root: u64,
}

impl BundleFront {
    /// Reads and verifies everything up to the verity leaves, and checks it against this machine.
    pub(crate) fn read(
        source: &mut dyn Source,
        admission: &Admission,
        wanted: &Wanted,
    ) -> Result<Self> {
        let header = read_header(source)?;
        source.expect_until(header.frames_offset());
        let mut envelope = vec![0; header.envelope_length as usize];
        source.read_exact_at(header.envelope_offset(), &mut envelope)?;
        let mut keyring = vec![0; header.keyring_length as usize];
        source.read_exact_at(header.keyring_offset(), &mut keyring)?;
        let verified = verify_manifest(admission.trust(), &envelope, &keyring).map_err(rejected)?;
        // A loader is started by firmware, whatever the present one trusts.
        if wanted.kind != Kind::Loader {
            admission.loader_takes(&envelope, &keyring)?;
        }
        let (serial, level) = (verified.keyring.serial, verified.level());
        let manifest = verified.manifest;
        suits(&manifest, level, wanted)?;
        let uki = manifest.uki().map_err(|e| rejected(e.into()))?.clone();
        fits(&manifest, &uki, wanted.room)?;
        header.check_against(&manifest).map_err(not_a_bundle)?;
        let mut table = vec![0; header.table_length() as usize];
        source.read_exact_at(header.table_offset(), &mut table)?;
        let table = FrameTable::decode(&table).map_err(not_a_bundle)?;
        let front = Self {
            header,
            envelope,
            keyring,
            manifest,
            uki,
            digest: verified.digest,
            serial,
            table,
        };
        if let Some(size) = source.size()
            && size != front.end()
        {
            return Err(wrong_length(source.name(), size, front.end()));
        }
        Ok(front)
    }

    /// What the record says of a slot that holds it.
    pub(crate) fn contents(&self) -> SlotContents {
        self.manifest.slot_contents(self.digest, self.serial)
    }

    /// Where the bundle ends.
    pub(crate) fn end(&self) -> u64 {
        self.header
            .frames_offset()
            .saturating_add(self.table.total())
    }

    /// Reads the verity leaves and checks that they are those of the root hash.
    pub(super) fn read_leaves(
        &self,
        source: &mut dyn Source,
        leaves: &mut Leaves,
    ) -> Result<Option<Vec<u8>>> {
        let Some(root) = &self.manifest.root else {
            return Ok(None);
        };
        let mut builder = TreeBuilder::new(&root.salt);
        let mut buf = vec![0; STEP];
        let mut done = 0;
        while done < self.header.leaves_length {
            let part = (self.header.leaves_length - done).min(STEP as u64) as usize;
            source.read_exact_at(self.header.leaves_offset() + done, &mut buf[..part])?;
            builder.push(&buf[..part]);
            leaves.push(&buf[..part])?;
            done += part as u64;
        }
        match builder.finish() {
            Some(tree) if tree.root == root.hash => Ok(Some(tree.upper)),
            _ => Err(Failure::verification(
                "the bundle's verity leaves are not those of the root hash that was signed",
            )
            .next("the bundle was damaged on its way: fetch it again; nothing was changed")),
        }
    }
}

/// Byte by byte as far as it can be told that this is no bundle: a note of ten bytes was not cut short.
fn read_header(source: &mut dyn Source) -> Result<Header> {
    let mut bytes = [0; HEADER_SIZE];
    let (magic, rest) = bytes.split_at_mut(MAGIC.len());
    for (at, wanted) in MAGIC.into_iter().enumerate() {
        source.read_exact_at(at as u64, &mut magic[at..=at])?;
        if magic[at] != wanted {
            return Err(not_a_bundle(BundleError::Magic));
        }
    }
    source.read_exact_at(MAGIC.len() as u64, rest)?;
    Header::decode(&bytes).map_err(not_a_bundle)
}

/// The message for a bundle that is longer or shorter than its frame table says.
pub(crate) fn wrong_length(name: &str, found: u64, expected: u64) -> Failure {
    let how = if found < expected {
        "cut short"
    } else {
        "longer than it should be"
    };
    Failure::source(format!(
        "{name} has {found} bytes, its frame table says {expected}: it is {how}"
    ))
    .next("fetch or copy the bundle again, and compare its size with the publisher's")
}

fn not_a_bundle(error: BundleError) -> Failure {
    let failure = Failure::verification(error);
    match error {
        BundleError::Magic => failure
            .next("name a bundle, the .spb file that `imager build` makes (not a disk image)"),
        BundleError::Format(_) | BundleError::Flags(_) => {
            failure.next("install an intermediate version first: its bootctl knows this format")
        }
        _ => failure.next("the bundle is damaged: fetch it again; nothing was changed"),
    }
}

fn rejected(rejected: Rejected) -> Failure {
    let next = match &rejected {
        Rejected::Signature(_) | Rejected::Keyring(_) => {
            "the bundle is not signed by keys that this machine trusts: ask its publisher; nothing was changed"
        }
        Rejected::Architecture { .. } => "fetch the bundle for this machine's architecture",
        Rejected::Product { .. } => "fetch the bundle of this machine's product",
        Rejected::Layout { .. } => {
            "this disk has to be written anew with a disk image of that layout"
        }
        Rejected::Kind { found, .. } => match found.place() {
            Place::Slot => "install it with `bootctl install`; nothing was changed",
            Place::Recovery => {
                "replace recovery with `bootctl update-recovery`; nothing was changed"
            }
            Place::Esps => {
                "a loader goes onto the ESPs, with `bootctl update-loader`; nothing was changed"
            }
            Place::State => {
                "it is a file for `state`, which this version of bootctl cannot install yet: upgrade the system to one \
                 that can; nothing was changed"
            }
            Place::Medium => {
                "it is for a medium that a machine is installed from, which this version of bootctl cannot use yet: \
                 fetch the bundle of a system; nothing was changed"
            }
        },
        _ => "fetch another bundle; nothing was changed",
    };
    Failure::verification(rejected).next(next)
}

/// Kind, floor, expiry.
fn suits(manifest: &Manifest, level: Level, wanted: &Wanted) -> Result<()> {
    let now = wanted.now;
    if manifest.kind != wanted.kind {
        return Err(rejected(Rejected::Kind {
            found: manifest.kind,
            expected: wanted.kind,
        }));
    }
    wanted.floor.admits_new(level).map_err(|refused| {
        Failure::verification(refused)
            .doing("comparing with the floors of this machine")
            .next(not_admitted(refused))
    })?;
    if let Some(expires) = manifest.expires
        && let Ok(expires) = i64::try_from(expires)
        && now > expires
    {
        return Err(Failure::verification(format!(
            "the bundle expired on {}, the clock shows {}",
            clock::format(expires),
            clock::format(now)
        ))
        .next("fetch a newer bundle, or set the clock if it is wrong"));
    }
    Ok(())
}

fn fits(manifest: &Manifest, uki: &Uki, room: Room) -> Result<()> {
    let boot = UKI_OFFSET.saturating_add(uki.size.next_multiple_of(4096));
    let root = manifest.root.as_ref().map_or(0, |r| r.size);
    for (what, needs, has) in [("UKI", boot, room.boot), ("root", root, room.root)] {
        if needs > has {
            return Err(Failure::new(
                Code::DoesNotFit,
                format!("the {what} needs {needs} bytes in the slot, its partition has {has}"),
            )
            .next("build a smaller image, or write the disk anew with larger slots (headroom in the recipe); nothing was changed"));
        }
    }
    Ok(())
}
