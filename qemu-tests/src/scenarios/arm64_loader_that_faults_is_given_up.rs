//! on ARM64, a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::loader_that_faults_is_given_up;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-loader-that-faults-is-given-up",
    shows: "on ARM64, a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts",
    architecture: Architecture::Aarch64,
    seconds: 300,
    ..loader_that_faults_is_given_up::SCENARIO
};
