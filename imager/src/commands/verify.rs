//! `imager verify`.

use std::path::PathBuf;

use anyhow::Result;

/// Check signatures and every byte of a disk image or bundle.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk image or a bundle
    file: PathBuf,
    /// The key directory with the root keys to check against
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    anyhow::bail!(
        "verifying {} by {} is not built yet",
        args.file.display(),
        args.keys.display()
    )
}
