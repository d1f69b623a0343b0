//! `imager keygen`.

use std::path::PathBuf;

use anyhow::Result;

use super::print;

use crate::release::authority::{KeyCount, make_keys};

/// Make a directory of new root and signing keys.
///
/// The root keys are the product's root of trust: they go into every loader (their public halves) and
/// sign the keyring. Keep root*.key offline. The signing keys sign images; `imager build --keys DIR`
/// uses them. Nothing is ever overwritten.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The product that the keys are for; recipes name it
    #[arg(long, value_name = "NAME")]
    product: String,
    /// How many root keys
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    root_keys: u8,
    /// How many of the root keys must sign a keyring
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=16))]
    root_threshold: u8,
    /// How many signing keys
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    signing_keys: u8,
    /// How many of the signing keys must sign an image
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=16))]
    signing_threshold: u8,
    /// Where to put them; made when it is not there
    directory: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let count = |keys, threshold| KeyCount { keys, threshold };
    make_keys(
        &args.directory,
        &args.product,
        count(args.root_keys, args.root_threshold),
        count(args.signing_keys, args.signing_threshold),
    )?;
    print(format_args!(
        "Made keys for product {} in {}.\n",
        args.product,
        args.directory.display()
    ))?;
    print(format_args!(
        "Keep root*.key offline; whoever has signing*.key can sign images.\n"
    ))?;
    print(format_args!(
        "Next: write `product = \"{}\"` into a recipe, and `imager build RECIPE.toml --keys {}`.\n",
        args.product,
        args.directory.display()
    ))?;
    Ok(())
}
