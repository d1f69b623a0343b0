//! `imager lock`: pins a recipe's packages.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Context, print};
use crate::arch::{self, Architecture};
use crate::build::warnings;
use crate::debian::lock;
use crate::recipe::Recipe;
use crate::workshop::{Workshop, durable};

/// Pin the packages of a recipe and its recovery system by name, version and SHA-256
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A build takes RECIPE.lock from beside its recipe, or what --lock names. A lock is of use to who
keeps the packages it names: archives drop old versions.
Example: imager lock recipes/images/minimal.toml")]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Only this architecture (default: every one that the recipe has a kernel for)
    #[arg(long, value_parser = arch::parse)]
    arch: Option<Architecture>,
    /// Where to write it (default: beside the recipe)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let workshop = context.workshop()?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| recipe.path.with_extension("lock"));
    let architectures: Vec<_> = match args.arch {
        Some(architecture) => vec![architecture],
        None => recipe.kernel.keys().copied().collect(),
    };
    let recovery = recipe.recovery_system()?;
    let recipes: Vec<&Recipe> = std::iter::once(&recipe).chain(&recovery).collect();
    warnings::say(&recipes, None, false, |text| workshop.progress().line(text))?;
    let locked = context.block_on(async {
        workshop.tools().await?;
        let mut locked = pin(&workshop, &recipe, &architectures).await?;
        if let Some(recovery) = &recovery {
            locked.recovery = Some(Box::new(pin(&workshop, recovery, &architectures).await?));
        }
        Ok(locked)
    })?;
    durable::write(&output, locked.to_text()?.as_bytes())
        .with_context(|| format!("cannot write {}", output.display()))?;
    for lock in std::iter::once(&locked).chain(locked.recovery.as_deref()) {
        for (architecture, set) in &lock.sets {
            print(format_args!(
                "{} for {architecture}: {} packages and the kernel {}\n",
                lock.recipe,
                set.packages.len(),
                set.kernel.version
            ))?;
        }
    }
    print(format_args!("{}\n", output.display()))?;
    Ok(())
}

/// One lock for several architectures.
async fn pin(
    workshop: &Workshop,
    recipe: &Recipe,
    architectures: &[Architecture],
) -> Result<lock::Lock> {
    let mut merged: Option<lock::Lock> = None;
    for architecture in architectures {
        let lock = lock::resolve(workshop, recipe, *architecture, true).await?;
        match &mut merged {
            None => merged = Some(lock),
            Some(merged) => {
                for (architecture, set) in lock.sets {
                    merged.sets.entry(architecture).or_insert(set);
                }
            }
        }
    }
    merged.with_context(|| format!("{} names no kernel", recipe.path.display()))
}
