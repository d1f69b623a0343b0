//! Rule 9 in the loader: which security version counts.

use alloc::format;

use super::{Boot, Platform};
use crate::{
    event::{Event, EventKind, Stage},
    slot::{Slot, Target},
    types::SecurityVersion,
    verify::Verify,
};

impl<V: Verify> Boot<'_, V> {
    pub(super) fn floor(&self) -> SecurityVersion {
        let cached = self
            .record
            .as_ref()
            .map(|record| record.floor)
            .unwrap_or_default();
        cached.max(self.firmware.system)
    }

    /// By the record's own account: the floor is above everything that was ever installed.
    pub(super) fn floor_looks_implausible(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let slots = Slot::BOTH.map(|slot| record.slot(slot).contents());
            let highest = slots
                .into_iter()
                .flatten()
                .map(|contents| contents.security_version)
                .max();
            highest.is_some_and(|highest| record.floor > highest)
        })
    }

    /// Rule 9: a cached floor above every slot that verifies is damage. Returns whether it was, and has
    /// been replaced by the firmware's; the next commit writes that down.
    pub(super) fn drop_implausible_floor<P: Platform>(&mut self, platform: &mut P) -> bool {
        let cached = self.floor();
        if cached <= self.firmware.system {
            return false;
        }
        let versions = Slot::BOTH.map(|slot| {
            let checked = self.check(platform, slot.into(), self.firmware.system);
            checked
                .ok()
                .map(|(verified, _)| verified.manifest.security_version)
        });
        let highest = versions.into_iter().flatten().max();
        let implausible = highest.is_some_and(|highest| highest < cached);
        if implausible && let Some(record) = &mut self.record {
            record.floor = self.firmware.system;
            let text = format!(
                "security floor {cached} is above every slot; using {}",
                record.floor
            );
            platform.log(format_args!("boot-state: {text}"));
            self.event(
                platform,
                Event::new(Stage::LOADER, EventKind::FLOOR_IMPLAUSIBLE, text),
            );
        }
        implausible
    }

    /// Carries the record's floors over to the firmware's, as far as what is good and verifies allows.
    pub(super) fn raise_firmware_floors<P: Platform>(&mut self, platform: &mut P) {
        let Some(record) = self.record.clone() else {
            return;
        };
        let mut floors = self.firmware;
        if record.floor > floors.system {
            let good = Slot::BOTH
                .into_iter()
                .filter(|slot| record.slot(*slot).is_good());
            let verified = good.filter_map(|slot| {
                self.check_manifest(platform, slot.into(), self.firmware.system)
                    .ok()
            });
            let versions = verified.map(|(_, verified)| verified.manifest.security_version);
            let lowest = versions.min().unwrap_or_default();
            floors.system = floors.system.max(record.floor.min(lowest));
        }
        if record.recovery_floor > floors.recovery {
            let recovery = self.check_manifest(platform, Target::Recovery, self.firmware.recovery);
            let version = recovery.map(|(_, verified)| verified.manifest.security_version);
            let version = version.unwrap_or_default();
            floors.recovery = floors.recovery.max(record.recovery_floor.min(version));
        }
        if floors != self.firmware {
            match platform.raise_firmware_floors(floors) {
                Ok(()) => self.firmware = floors,
                Err(error) => platform.log(format_args!("firmware floor: {error}")),
            }
        }
    }
}
