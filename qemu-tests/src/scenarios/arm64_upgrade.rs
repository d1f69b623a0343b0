//! on ARM64, an upgrade over HTTP starts in the other slot, is marked good, and keeps data and identity

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::upgrade_is_marked_good;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-upgrade",
    shows: "on ARM64, an upgrade over HTTP starts in the other slot, is marked good, and keeps data and identity",
    architecture: Architecture::Aarch64,
    gate: false,
    seconds: 260,
    ..upgrade_is_marked_good::SCENARIO
};
