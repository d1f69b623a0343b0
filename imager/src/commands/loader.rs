//! `imager loader`.

use std::path::PathBuf;

use anyhow::Result;

use super::build::{human_size, time_asked_for};
use super::{Context, print};
use crate::boot::loader::{Release, sign};
use crate::output::bundle;
use crate::output::frames::Frames;
use crate::release::authority::Authority;

/// Make the bundle of a loader that was changed after its build
///
/// `imager build` leaves loader.efi and its bundle loader.spb. Where firmware starts only what is signed
/// for Secure Boot, sign loader.efi (sbsign) and make the bundle anew from what comes out. Product,
/// architecture, layout and root keys are read from the loader.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sbsign --key db.key --cert db.pem --output loader.signed.efi out/loader.efi
  imager loader loader.signed.efi --keys keys --image-version 1.2.0 --out loader.spb")]
pub struct Args {
    /// The loader
    loader: PathBuf,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    image_version: String,
    /// Its security version
    #[arg(long, default_value_t = 1, value_name = "N")]
    security_version: u64,
    /// The key directory that `imager keygen` made
    #[arg(long, default_value = "keys", value_name = "DIR")]
    keys: PathBuf,
    /// Sign with this key file, not the key directory's; may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Sign by this command, as `imager build` does; may be repeated
    #[arg(long, value_name = "COMMAND")]
    sign_command: Vec<String>,
    /// Refuse to install the loader after this time (seconds since 1970)
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
    /// The bundle
    #[arg(long, short, default_value = "loader.spb", value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let authority = Authority::open(&args.keys, &args.key, &args.sign_command)?;
    let release = Release {
        version: args.image_version.clone(),
        security_version: args.security_version,
        time: time_asked_for()?.unwrap_or(0),
        recipe: String::new(),
        expires: args.expires,
    };
    let image = sign(&args.loader, &authority, &release)?;
    let workshop = context.workshop()?;
    let step = workshop.progress().start("bundle");
    let frames = Frames::new(workshop.cache(), 19)?;
    bundle::write(&image, &[], &frames, &args.out, &step)?;
    step.done();
    print(format_args!(
        "loader {} for {}, manifest {}\n",
        image.manifest.version, image.manifest.architecture, image.signed.digest
    ))?;
    let size = std::fs::metadata(&args.out)?.len();
    print(format_args!(
        "{:>10}  {}\n",
        human_size(size),
        args.out.display()
    ))?;
    Ok(())
}
