//! `imager verify`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use boot_core::trust::Trust;

use super::{VerificationFailed, print};
use crate::inspect::verify::{Authority, verify};
use crate::release::authority::read_root;

/// Check signatures and every signed byte of a disk image or bundle.
///
/// Checks what the loader checks before it starts a slot, and beyond that every byte of the root and
/// its verity tree, and that both ESPs are the same. Ends with status 4 when anything is not as it
/// must be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk image (raw) or a bundle
    file: PathBuf,
    /// The key directory with the root keys to check against
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "trust",
        conflicts_with = "trust"
    )]
    keys: Option<PathBuf>,
    /// The root of trust to check against (trust.json): product, architecture and layout count as well
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let authority = match (&args.trust, &args.keys) {
        (Some(path), _) => {
            let what = || format!("reading the root of trust {}", path.display());
            let json = std::fs::read(path).with_context(what)?;
            Authority::Trust(Trust::from_json(&json).with_context(what)?)
        }
        (None, Some(directory)) => Authority::Root(read_root(directory)?),
        (None, None) => anyhow::bail!("say what to check against: --keys DIR or --trust FILE"),
    };
    let checks = verify(&args.file, &authority)?;
    if args.json {
        print(format_args!("{}\n", serde_json::to_string_pretty(&checks)?))?;
    } else {
        for check in &checks.checks {
            let word = if check.good { "ok" } else { "FAILED" };
            print(format_args!("{word:<7} {}: {}\n", check.what, check.found))?;
        }
    }
    if checks.good() {
        return Ok(());
    }
    Err(VerificationFailed(format!("{} is not as it must be", args.file.display())).into())
}
