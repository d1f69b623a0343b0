//! Machines in memory: small signed images on small disks, and what runs in the field over them.
//!
//! Two programs. `crash-sim` ([`cuts`]) cuts the power at every write; `corruption` ([`corruption`]) damages every
//! region of a disk. Both start a machine from what is left, with the loader's, the agent's and `bootctl`'s own code,
//! and look where it comes to rest.

pub mod corruption;
mod crash;
pub mod cuts;
mod disk;
mod explore;
mod histories;
mod history;
mod images;
mod invariants;
mod machine;
mod nvram;
mod path;
mod random;
mod rest;
mod sabotage;
mod slot_contents;
mod table;
mod world;

use std::process::ExitCode;

use anyhow::Result;

/// How a program ends: 0 if everything holds, 1 if something does not, 2 if it could not be tried.
pub fn ended(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
