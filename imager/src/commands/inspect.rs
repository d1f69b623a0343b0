//! `imager inspect`.

use std::path::PathBuf;

use anyhow::Result;

/// Show what a disk image or bundle holds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk image or a bundle
    file: PathBuf,
    /// The same facts as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    anyhow::bail!(
        "inspecting {} (json: {}) is not built yet",
        args.file.display(),
        args.json
    )
}
