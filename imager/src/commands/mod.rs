//! The command line: one file per command.

mod build;
mod cache;
mod completions;
mod inspect;
mod keygen;
mod loader;
mod lock;
mod run;
mod verify;

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::sources::address::shown_in;

/// Builds, signs, inspects and boots Sternpost images.
///
/// A recipe (TOML) says what an image contains. `imager build` turns it into a disk image, which a
/// machine is given once, and a bundle, which machines that run already install. `imager run` boots
/// the disk image in an emulated machine.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Where packages, tools and finished steps are kept [default: ~/.cache/sternpost]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Example:
  imager keygen --product edge-box keys
  imager build recipes/images/minimal-vm.toml --keys keys --out out
  imager run out/disk.raw

Exit status: 0 done, 1 failed, 2 wrong usage, 4 verification failed.";

/// What `imager` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a directory of new root and signing keys
    Keygen(keygen::Args),
    /// Build disk image and bundle from a recipe
    Build(build::Args),
    /// Make the bundle of a loader that was changed after its build
    Loader(loader::Args),
    /// Show what a disk image or bundle holds
    Inspect(inspect::Args),
    /// Check signatures and every signed byte of a disk image or bundle
    Verify(verify::Args),
    /// Boot a disk image in an emulated machine
    Run(run::Args),
    /// Pin the packages of a recipe and its recovery system by name, version and SHA-256
    Lock(lock::Args),
    /// Show the cache, make it smaller, or make its tools tree
    Cache(cache::Args),
    /// Write shell completions to standard output
    Completions(completions::CompletionsArgs),
    /// Write man pages to a directory
    Man(completions::ManArgs),
}

/// A failure that has an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VerificationFailed(pub String);

/// Parses the command line, does it, reports.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            let text = shown_in(&format!("{error:#}"));
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::from(if error.is::<VerificationFailed>() {
                4
            } else {
                1
            })
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let context = Context {
        cache: cli.cache,
        quiet: cli.quiet,
    };
    match cli.command {
        Command::Keygen(args) => keygen::run(&args),
        Command::Build(args) => build::run(&context, args),
        Command::Loader(args) => loader::run(&context, &args),
        Command::Inspect(args) => inspect::run(&context, &args),
        Command::Verify(args) => verify::run(&args),
        Command::Run(args) => run::run(&context, args),
        Command::Lock(args) => lock::run(&context, &args),
        Command::Cache(args) => cache::run(&context, &args),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::Man(args) => completions::man(&args, Cli::command()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output. Who closed it has read enough (`| head`): no failure, and no reason to leave
/// undone what a command does besides.
fn print(text: Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing to standard output"),
    }
}

/// What the options before the command say.
pub(crate) struct Context {
    cache: Option<PathBuf>,
    quiet: bool,
}

impl Context {
    /// Cache, tools and progress, as the options ask.
    pub(crate) fn workshop(&self) -> Result<crate::workshop::Workshop> {
        use crate::workshop::Progress;
        let progress = if self.quiet {
            Progress::hidden()
        } else {
            Progress::new()
        };
        crate::workshop::Workshop::open(self.cache.as_deref(), progress)
    }

    /// Runs to its end on all cores.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
