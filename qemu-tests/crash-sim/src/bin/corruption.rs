//! `corruption`: see [`crash_sim::corruption`].

use std::process::ExitCode;

use clap::Parser as _;
use crash_sim::corruption::{self, Arguments};

fn main() -> ExitCode {
    crash_sim::ended(corruption::run(&Arguments::parse()))
}
