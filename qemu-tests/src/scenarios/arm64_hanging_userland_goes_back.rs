//! on ARM64, an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::hanging_userland_goes_back;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-hanging-userland-goes-back",
    shows: "on ARM64, an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs",
    architecture: Architecture::Aarch64,
    // The cloud kernel lacks the watchdog's driver.
    recipe: "minimal",
    gate: false,
    seconds: 400,
    ..hanging_userland_goes_back::SCENARIO
};
