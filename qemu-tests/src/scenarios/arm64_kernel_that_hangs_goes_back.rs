//! on ARM64, a kernel that hangs before its initramfs is reset by the timer that the loader armed, and the old version runs again

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::kernel_that_hangs_goes_back;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-kernel-that-hangs-goes-back",
    shows: "on ARM64, a kernel that hangs before its initramfs is reset by the timer that the loader armed, and the old version runs again",
    architecture: Architecture::Aarch64,
    // The cloud kernel lacks the watchdog's driver.
    recipe: "minimal",
    gate: false,
    seconds: 1000,
    ..kernel_that_hangs_goes_back::SCENARIO
};
