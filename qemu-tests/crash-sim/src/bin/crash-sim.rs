//! `crash-sim`: see [`crash_sim::cuts`].

use std::process::ExitCode;

use clap::Parser as _;
use crash_sim::cuts::{self, Arguments};

fn main() -> ExitCode {
    crash_sim::ended(cuts::run(&Arguments::parse()))
}
