//! The way to a disk, as text: what a violation prints, and `--replay` reads.
//!
//! `upgrades@512/3/0.1f.-/2.3.1`: of that history, on sectors of 512 bytes, step 3 (counted from 0), a cut in epoch 0
//! that kept the sectors of mask 1f and tore none; then one in epoch 2 of what followed, which tore sector 1.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result};

use crate::crash::Cut;

/// Where the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// After how many flushes that made something durable.
    pub(crate) epoch: usize,
    /// What arrived.
    pub(crate) cut: Cut,
}

/// The way to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Name of the history.
    pub(crate) history: String,
    /// Bytes in a sector.
    pub(crate) sector: u32,
    /// Which step was cut.
    pub(crate) step: usize,
    /// The cuts: of the step, then of what followed.
    pub(crate) places: Vec<Place>,
}

impl Path {
    /// How long it is: cuts first, then steps.
    pub(crate) fn length(&self) -> (usize, usize, usize) {
        let flushes = self.places.iter().map(|place| place.epoch).sum();
        (self.places.len(), self.step, flushes)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.history, self.sector, self.step)?;
        for Place { epoch, cut } in &self.places {
            write!(f, "/{epoch}.{:x}.", cut.kept)?;
            match cut.torn {
                Some(torn) => write!(f, "{torn}")?,
                None => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let (history, sector) = parts
            .next()
            .and_then(|first| first.split_once('@'))
            .context("expected HISTORY@SECTOR/STEP/EPOCH.KEPT.TORN")?;
        Ok(Self {
            history: history.into(),
            sector: sector.parse()?,
            step: parts.next().context("no step")?.parse()?,
            places: parts.map(place).collect::<Result<_>>()?,
        })
    }
}

fn place(text: &str) -> Result<Place> {
    let mut fields = text.split('.');
    let mut next = || {
        fields
            .next()
            .with_context(|| format!("{text}: expected EPOCH.KEPT.TORN"))
    };
    let (epoch, kept, torn) = (next()?, next()?, next()?);
    let torn = match torn {
        "-" => None,
        torn => Some(torn.parse()?),
    };
    Ok(Place {
        epoch: epoch.parse()?,
        cut: Cut {
            kept: u128::from_str_radix(kept, 16)?,
            torn,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        let text = "upgrades@512/3/0.1f.-/2.3.1";
        assert_eq!(text.parse::<Path>().unwrap().to_string(), text);
        for wrong in ["", "upgrades/3", "upgrades@512/x", "upgrades@512/3/0.1f"] {
            assert!(wrong.parse::<Path>().is_err(), "{wrong}");
        }
    }
}
