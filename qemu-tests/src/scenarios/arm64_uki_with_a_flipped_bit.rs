//! on ARM64, a slot whose UKI has one flipped bit is not started; the other one is

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::uki_with_a_flipped_bit;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-uki-with-a-flipped-bit",
    shows: "on ARM64, a slot whose UKI has one flipped bit is not started; the other one is",
    architecture: Architecture::Aarch64,
    gate: false,
    seconds: 80,
    ..uki_with_a_flipped_bit::SCENARIO
};
