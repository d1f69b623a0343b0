//! `imager inspect`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Context, print};
use crate::inspect::Report;
use crate::root::package_list::Listed;

/// Show what a disk image or bundle holds.
///
/// Of a machine's disk also what it left on `state`: whose it is, its profiles, clock and certificates.
/// Nothing is checked but that it can be read: `imager verify` checks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk image (raw), a disk, or a bundle
    file: PathBuf,
    /// The same facts as JSON
    #[arg(long)]
    json: bool,
    /// List the packages and artefacts in slot A's root instead (disk images)
    #[arg(long, conflicts_with = "json")]
    packages: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let report = Report::read(&args.file)?;
    if args.packages {
        return packages(context, args, &report);
    }
    if args.json {
        print(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(format_args!("{report}"))?;
    }
    Ok(())
}

fn packages(context: &Context, args: &Args, report: &Report) -> Result<()> {
    let Report::Disk(disk) = report else {
        anyhow::bail!(
            "a bundle's packages are listed in the packages.json beside it; --packages reads disk images"
        );
    };
    let root = disk.table.find("root-a")?;
    let workshop = context.workshop()?;
    let listed = context.block_on(async {
        let tools = workshop.tools().await?;
        let mut dump = tools.command("dump.erofs")?;
        dump.args(["--cat", "--path=/usr/lib/sternpost/packages.json"])
            .arg(format!("--offset={}", root.start))
            .arg(&args.file);
        crate::workshop::tool::run("reading the list of packages from root-a", &mut dump).await
    })?;
    let packages: Vec<Listed> =
        serde_json::from_slice(&listed).context("reading the list of packages in root-a")?;
    for package in packages {
        print(format_args!("{package}\n"))?;
    }
    Ok(())
}
