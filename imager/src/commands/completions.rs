//! `imager completions` and `imager man`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap_complete::Shell;

use super::print;

/// Write shell completions to standard output.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write man pages, one a command, to a directory.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The directory; made when it is not there
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: clap::Command) -> Result<()> {
    // It panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "imager", &mut text);
    print(format_args!("{}", String::from_utf8_lossy(&text)))
}

pub(super) fn man(args: &ManArgs, command: clap::Command) -> Result<()> {
    let what = || format!("writing man pages to {}", args.directory.display());
    std::fs::create_dir_all(&args.directory).with_context(what)?;
    clap_mangen::generate_to(command, &args.directory).with_context(what)
}
