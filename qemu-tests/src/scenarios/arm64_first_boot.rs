//! on ARM64, a new disk boots, is grown, is marked good, and keeps what is written

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::first_boot_grows_the_disk;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-first-boot",
    shows: "on ARM64, a new disk boots, is grown, is marked good, and keeps what is written",
    architecture: Architecture::Aarch64,
    gate: false,
    seconds: 200,
    ..first_boot_grows_the_disk::SCENARIO
};
