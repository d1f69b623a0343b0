//! `imager cache`: what the cache holds, and making it smaller.

use std::time::Duration;

use anyhow::Result;

use super::{Context, print};
use crate::workshop::cache::Usage;
use crate::workshop::cache::prune::{Limits, Pruned};

/// What is kept where nothing else was said.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Show the cache, make it smaller, or make its tools tree
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The cache may be deleted at any time; what is missing is downloaded or made again.
Examples:
  imager cache prune --older-than 7d
  imager cache prune --keep 10GB --dry-run")]
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
    /// Remove what was not used for some time, or all but what was used last
    ///
    /// Builds that run meanwhile keep what they use.
    Prune {
        /// Remove what was not used for this long, such as 12h or 30d [default: 30d, without --keep]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        older_than: Option<Duration>,
        /// Then remove what was not used for longest, until no more than this is left, such as 10GB
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        keep: Option<u64>,
        /// Remove everything, caches of cargo and Go among it
        #[arg(long, conflicts_with_all = ["older_than", "keep"])]
        all: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// For programs
        #[arg(long)]
        json: bool,
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
            print(format_args!("{report:#}\n"))?;
        }
        Action::List { json: false } => {
            print(format_args!("{}\n", cache.path().display()))?;
            let usage = cache.usage()?;
            for kind in &usage {
                print(format_args!("{}\n", line(kind)))?;
            }
            print(format_args!(
                "{:>10}          in all\n",
                human(usage.iter().map(|u| u.bytes).sum())
            ))?;
        }
        Action::Prune {
            older_than,
            keep,
            all,
            dry_run,
            json,
        } => {
            let limits = match all {
                true => Limits::Everything,
                false => Limits::Least {
                    unused_for: older_than.or(keep.is_none().then_some(MONTH)),
                    keep: *keep,
                },
            };
            let pruned = cache.prune(limits, *dry_run)?;
            if *json {
                let mut report = serde_json::to_value(&pruned)?;
                report["path"] = serde_json::to_value(cache.path())?;
                report["dry_run"] = (*dry_run).into();
                print(format_args!("{report:#}\n"))?;
            } else {
                show(&pruned, *dry_run)?;
            }
        }
        Action::Tools => {
            let tools = context.block_on(async { Ok(workshop.tools().await?.clone()) })?;
            print(format_args!("{}\n", tools.tree().display()))?;
        }
    }
    Ok(())
}

fn show(pruned: &Pruned, dry_run: bool) -> Result<()> {
    for kind in &pruned.freed {
        print(format_args!("{}\n", line(kind)))?;
    }
    for path in &pruned.kept {
        print(format_args!("! not removed: {path}\n"))?;
    }
    let verb = if dry_run { "would be freed" } else { "freed" };
    print(format_args!(
        "{} {verb}, {} left{}\n",
        human(pruned.freed_bytes),
        human(pruned.left_bytes),
        match pruned.beside_builds {
            true => "; what running builds may use was not touched",
            false => "",
        }
    ))
}

fn line(kind: &Usage) -> String {
    let (bytes, entries) = (human(kind.bytes), kind.entries);
    format!("{bytes:>10}  {entries:>6}  {}", kind.name)
}

/// `30d`, `12h`, `90m`; a number alone is days.
fn parse_time(text: &str) -> Result<Duration, String> {
    let seconds = quantity(text, |unit| match unit {
        "d" | "" => Some(86_400),
        "h" => Some(3600),
        "m" => Some(60),
        _ => None,
    });
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is not a time such as 12h or 30d"))
}

/// `10GB`, `512MiB`; a number alone is bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = quantity(text, |unit| match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        _ => None,
    });
    bytes.ok_or_else(|| format!("`{text}` is not a size such as 10GB or 512MiB"))
}

/// A number times what its unit stands for.
fn quantity(text: &str, unit: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, rest) = text.split_at(end.unwrap_or(text.len()));
    number.parse::<u64>().ok()?.checked_mul(unit(rest.trim())?)
}

fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(parse_time("30d"), Ok(MONTH));
        assert_eq!(parse_time("30"), Ok(MONTH));
        assert_eq!(parse_time("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse_size("10GB"), Ok(10_000_000_000));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        assert_eq!(parse_size("0"), Ok(0));
        for wrong in ["", "d", "3w", "-1d", "99999999999999999999d"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "GB", "10XB", "-1", "99999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
