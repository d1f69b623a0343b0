//! `imager build`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use boot_core::floor::STEP;

use super::{Context, print};
use crate::arch::{self, Architecture};
use crate::build::{self, Order};
use crate::debian::lock::Lock;
use crate::recipe::Recipe;
use crate::release::authority::Authority;
use crate::root;
use crate::root::image_files::Identity;

/// Build disk image and bundle from a recipe.
///
/// The same recipe, keys, packages and options give the same bytes. Steps whose inputs did not change
/// since an earlier build are taken from the cache.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// The machine's architecture
    #[arg(long, default_value_t = Architecture::OWN, value_parser = arch::parse)]
    arch: Architecture,
    /// Bytes in a logical sector of the disk
    #[arg(long, default_value_t = 512, value_name = "BYTES", value_parser = parse_sector_size)]
    sector_size: u32,
    /// The image's version [default: the recipe's]
    #[arg(long, value_name = "VERSION")]
    image_version: Option<String>,
    /// The image's security version [default: the recipe's]
    #[arg(long, value_name = "N")]
    security_version: Option<u64>,
    /// The default profile (YAML) [default: the recipe's]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// The key directory that `imager keygen` made
    #[arg(long, default_value = "keys", value_name = "DIR")]
    keys: PathBuf,
    /// Sign with this key file, not the key directory's; may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Sign by this command: it gets the bytes on standard input and writes the ed25519 signature to
    /// standard output (raw, hex or base64); may be repeated
    #[arg(long, value_name = "COMMAND")]
    sign_command: Vec<String>,
    /// Take an artefact from a file, whatever the recipe's own sources; its SHA-256 must be the recipe's
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_source)]
    source: Vec<(String, PathBuf)>,
    /// Use exactly the packages of this lock [default: RECIPE.lock beside the recipe, if it is there]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Refuse to install the image after this time (seconds since 1970)
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
    /// zstd's level for the bundle: 19 saves about 2 % over the default and takes ten times as long
    #[arg(long, default_value_t = 9, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=22))]
    bundle_level: i32,
    /// Refuse what is hardly meant in recipe and profile, and not only mistakes
    #[arg(long)]
    deny_warnings: bool,
    /// Write disk.raw.zst as well
    #[arg(long)]
    zst: bool,
    /// Where the outputs go
    #[arg(long, short, default_value = "out", value_name = "DIR")]
    out: PathBuf,
}

fn parse_source(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err(format!("`{text}` is not NAME=FILE")),
    }
}

pub(super) fn parse_sector_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" | "4k" | "4K" => Ok(4096),
        _ => Err("disks have sectors of 512 or 4096 bytes".to_owned()),
    }
}

/// The time of what is built, if the environment says it.
pub(super) fn time_asked_for() -> Result<Option<u64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .map(Some)
            .with_context(|| format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds")),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => bail!("reading SOURCE_DATE_EPOCH: {error}"),
    }
}

pub(super) fn run(context: &Context, args: Args) -> Result<()> {
    let mut recipe = Recipe::load(&args.recipe)?;
    if let Some(version) = args.security_version.filter(|it| *it > STEP) {
        recipe.warnings.push(format!(
            "--security-version: warning: machines take nothing more than {STEP} above their floor, which is 0 at first: \
             {version} is for those alone whose floor was driven up"
        ));
    }
    let time = time_asked_for()?;
    let order = Order {
        identity: Identity {
            version: args.image_version.unwrap_or_else(|| recipe.version.clone()),
            security_version: args.security_version.unwrap_or(recipe.security_version),
            architecture: args.arch,
            epoch: 0,
        },
        recovery_epoch: 0,
        time,
        authority: Authority::open(&args.keys, &args.key, &args.sign_command)?,
        profile: args.profile,
        sector_size: args.sector_size,
        bundle_level: args.bundle_level,
        pack_disk: args.zst,
        root_options: root::Options {
            sources: args.source.into_iter().collect::<BTreeMap<_, _>>(),
            lock: Lock::find(&recipe, args.lock.as_deref())?,
        },
        expires: args.expires,
        deny_warnings: args.deny_warnings,
        out: args.out,
        recipe,
    };
    let workshop = context.workshop()?;
    let out = order.out.clone();
    let outcome = context.block_on(build::build(&workshop, order))?;
    print(format_args!(
        "{} {} for {}, manifest {}\n",
        outcome.manifest.product,
        outcome.manifest.version,
        outcome.manifest.architecture,
        outcome.digest
    ))?;
    for (name, size) in &outcome.files {
        print(format_args!(
            "{:>10}  {}\n",
            human_size(*size),
            out.join(name).display()
        ))?;
    }
    print(format_args!(
        "Boot it: imager run {}\n",
        out.join("disk.raw").display()
    ))?;
    Ok(())
}

/// A size for people: three digits and a unit.
pub(super) fn human_size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
