//! `status`: what runs and why, what the slots hold, what is wrong and what to do about it.
//!
//! [`Status`] is what `--json` prints, and all that the text is made of. Its schema is published in
//! docs/schemas/status.schema.json.

mod facts;
mod problems;
mod text;

use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

pub use facts::Status;

/// `bootctl status`.
pub fn status(machine: &Machine) -> Result<Outcome> {
    let status = facts::gather(machine)?;
    let json = serde_json::to_value(&status).map_err(Failure::of)?;
    Ok(Outcome::new(text::text(&status), json))
}

/// The schema of what `status --json` prints.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Status>()
        .to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_current() {
        let path = concat!(env!("STERNPOST_SOURCE"), "/docs/schemas/status.schema.json");
        let wanted = format!("{:#}\n", json_schema());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == wanted,
            "run: UPDATE_GOLDEN=1 cargo test -p bootctl --lib the_published_schema, and read the diff"
        );
    }
}
