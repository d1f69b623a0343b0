//! on ARM64, whatever SMBIOS and fw_cfg say, the kernel has the image's own command line and no credential is imported

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::smbios_injection_does_nothing;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-smbios-injection-does-nothing",
    shows: "on ARM64, whatever SMBIOS and fw_cfg say, the kernel has the image's own command line and no credential is imported",
    architecture: Architecture::Aarch64,
    gate: false,
    seconds: 200,
    ..smbios_injection_does_nothing::SCENARIO
};
