//! Reads disk images and bundles.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use boot_core::dsse::Envelope;
use boot_core::manifest::Manifest;
use boot_core::slot_header;

use crate::arch::Architecture;
use crate::gpt::Table;
use crate::region::Region;

/// The architecture that slot A's manifest names, believed as it stands.
#[must_use]
pub fn architecture_of_disk(path: &Path) -> Option<Architecture> {
    let file = Arc::new(File::open(path).ok()?);
    let table = Table::read(&file, file.metadata().ok()?.len()).ok()?;
    ["boot-a", "boot-b", "boot-r"].iter().find_map(|label| {
        let mut region = Region::of(&file, table.find(label).ok()?, table.sector_size);
        let parts = slot_header::read_slot(&mut region).ok()?;
        let envelope = Envelope::parse(&parts.envelope).ok()?;
        let manifest = Manifest::parse(&envelope.payload).ok()?;
        Some(match manifest.architecture {
            boot_core::Architecture::X86_64 => Architecture::X86_64,
            boot_core::Architecture::Aarch64 => Architecture::Aarch64,
        })
    })
}
