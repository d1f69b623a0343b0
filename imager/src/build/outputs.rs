//! What a build leaves: checked, with the small files beside disk and bundle.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use boot_core::trust::Trust;
use serde_json::{Value, json};

use crate::build::staging::Staging;
use crate::debian::lock::Lock;
use crate::inspect::verify::{Authority, verify};
use crate::output::disk::SlotImage;
use crate::recipe::Recipe;
use crate::root::package_list::{self, Listed};

/// Reads the disk image and the bundles that were made as a machine will.
///
/// # Errors
/// Something is not as it must be: what it was made of was damaged on the way.
pub fn check(made: &[PathBuf], trust: &Trust) -> Result<()> {
    let authority = Authority::Trust(trust.clone());
    for path in made {
        let checks = verify(path, &authority)?.checks;
        if let Some(bad) = checks.iter().find(|check| !check.good) {
            bail!(
                "{} came out wrong, at {}: {}. What it was made of was damaged, in memory or in the cache; \
                 build again, and if that does not help after `imager cache prune --all`",
                path.display(),
                bad.what,
                bad.found
            );
        }
    }
    Ok(())
}

/// What is written about a build.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    pub system: &'a SlotImage,
    pub recovery: Option<&'a SlotImage>,
    /// Bytes in a sector of the disk.
    pub sector_size: u32,
    pub recipe: &'a Recipe,
    /// What is inside the system.
    pub packages: &'a [Listed],
    pub lock: Option<&'a Lock>,
}

impl Outputs<'_> {
    /// Writes manifest.json (the very bytes that are signed), manifest.dsse.json, packages.json,
    /// uki.efi, build.json and the lock; gives the lock's name.
    pub(super) fn write(&self, staging: &Staging) -> Result<Option<String>> {
        let write = |name: &str, bytes: &[u8]| {
            let path = staging.path(name);
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
        };
        write("manifest.json", &self.system.manifest.to_payload())?;
        write("manifest.dsse.json", &self.system.signed.envelope)?;
        let packages = package_list::to_json(self.packages).context("encoding packages.json")?;
        write("packages.json", packages.as_bytes())?;
        let uki = staging.path("uki.efi");
        fs::copy(&self.system.uki, &uki)
            .with_context(|| format!("copying the UKI to {}", uki.display()))?;
        write("build.json", &pretty(&self.facts())?)?;
        let Some(lock) = self.lock else {
            return Ok(None);
        };
        let name = format!("{}.lock", self.recipe.name);
        write(&name, lock.to_text()?.as_bytes())?;
        Ok(Some(name))
    }

    fn facts(&self) -> Value {
        let image = |image: &SlotImage| {
            json!({
                "version": image.manifest.version,
                "security_version": image.manifest.security_version,
                "manifest_digest": image.signed.digest,
                "uki_digest": image.manifest.uki.as_ref().map(|uki| uki.digest),
                "root_hash": image.manifest.root.as_ref().map(|root| root.hash),
            })
        };
        let manifest = &self.system.manifest;
        json!({
            "tool": manifest.build.tool,
            "recipe": self.recipe.name,
            "product": manifest.product,
            "architecture": manifest.architecture,
            "layout": manifest.layout,
            "sector_size": self.sector_size,
            "time": manifest.build.time,
            "system": image(self.system),
            "recovery": self.recovery.map(image),
        })
    }
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).context("encoding JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}
