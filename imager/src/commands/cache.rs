//! `imager cache`: what the cache holds, and making it smaller.

use std::time::Duration;

use anyhow::Result;

use super::Context;

/// Show the cache, make it smaller, or make its tools tree
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The cache may be deleted at any time; what is missing is downloaded or made again.
Example: imager cache prune --older-than 30")]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show what it holds (the default)
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for some time
    Prune {
        /// Remove what was not used for this many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        older_than: u64,
        /// Remove everything, caches of cargo and Go among it
        #[arg(long, conflicts_with = "older_than")]
        all: bool,
    },
    /// Make the tools tree now, and say where it is
    Tools,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let workshop = context.workshop()?;
    let cache = workshop.cache();
    match args
        .action
        .as_ref()
        .unwrap_or(&Action::List { json: false })
    {
        Action::List { json: true } => {
            let report = serde_json::json!({ "path": cache.path(), "entries": cache.usage()? });
            println!("{report:#}");
        }
        Action::List { json: false } => {
            println!("{}", cache.path().display());
            let usage = cache.usage()?;
            for kind in &usage {
                println!(
                    "{:>10}  {:>6}  {}",
                    human(kind.bytes),
                    kind.entries,
                    kind.name
                );
            }
            println!(
                "{:>10}          in all",
                human(usage.iter().map(|u| u.bytes).sum())
            );
        }
        Action::Prune { older_than, all } => {
            let age = (!all).then(|| Duration::from_secs(older_than.saturating_mul(86_400)));
            println!("{} freed", human(cache.prune(age)?));
        }
        Action::Tools => {
            let tools = context.block_on(async { Ok(workshop.tools().await?.clone()) })?;
            println!("{}", tools.tree().display());
        }
    }
    Ok(())
}

fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
