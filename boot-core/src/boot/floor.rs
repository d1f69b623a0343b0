//! Rule 9 in the loader: which floors count.

use alloc::{format, string::String, vec::Vec};

use super::{
    Boot, Platform,
    variable::{FloorVariable, Kept},
};
use crate::{
    event::{Event, EventKind, Stage},
    floor::{Floors, Level},
    slot::{Slot, Target},
    verify::Verify,
};

/// The floors that firmware keeps, as it answered at the beginning of a start.
#[derive(Clone, Debug, Default)]
pub(super) struct Firmware {
    /// What is known of them; 0 of the rest.
    pub(super) floors: Floors,
    /// What each variable says; nothing without Secure Boot.
    kept: Vec<(FloorVariable, Kept)>,
}

impl Firmware {
    /// Whether it is known how low the floor of `target` may be.
    fn knows(&self, target: Target) -> bool {
        let unknown = |kept: &Kept| matches!(kept, Kept::Foreign(_) | Kept::Unknown(_));
        !self
            .kept
            .iter()
            .any(|(variable, kept)| variable.guards(target) && unknown(kept))
    }
}

impl<V: Verify> Boot<'_, V> {
    /// The floors in force: the higher ones of what firmware and the record say.
    pub fn floors(&self) -> Floors {
        let recorded = self.record.as_ref().map(|record| record.floors);
        recorded.unwrap_or_default().max(self.firmware.floors)
    }

    /// Whether all of firmware's floors could be read; none without Secure Boot.
    pub fn firmware_floors_known(&self) -> Option<bool> {
        let all = [Target::A, Target::Recovery];
        (!self.firmware.kept.is_empty()).then(|| all.iter().all(|it| self.firmware.knows(*it)))
    }

    /// Asks firmware for its floors.
    pub(super) fn read_firmware_floors<P: Platform>(&mut self, platform: &mut P) {
        if !platform.secure_boot() {
            return;
        }
        for variable in FloorVariable::ALL {
            let kept = platform.floor_variable(variable).floor();
            let name = variable.name();
            match &kept {
                Kept::Floor(floor) => variable.put(&mut self.firmware.floors, *floor),
                Kept::Nothing => {}
                Kept::Foreign(why) => platform.log(format_args!("{name}: not the loader's: {why}")),
                Kept::Unknown(why) => platform.log(format_args!("{name}: cannot be read: {why}")),
            }
            self.firmware.kept.push((variable, kept));
        }
    }

    /// Carries the record's floors over to the firmware's, as far as what is good and verifies allows, and sees to it
    /// that each variable is there.
    pub(super) fn write_firmware_floors<P: Platform>(&mut self, platform: &mut P) {
        if self.firmware.kept.is_empty() {
            return;
        }
        let wanted = self.firmware_floors_to_be(platform);
        for (variable, kept) in &self.firmware.kept {
            let Some(write) = kept.write(variable.of(&wanted)) else {
                continue;
            };
            match platform.write_floor(*variable, write) {
                Ok(()) => variable.put(&mut self.firmware.floors, write.floor),
                Err(error) => platform.log(format_args!("{}: {error}", variable.name())),
            }
        }
    }

    fn firmware_floors_to_be<P: Platform>(&self, platform: &mut P) -> Floors {
        let mut floors = self.firmware.floors;
        let Some(record) = &self.record else {
            return floors;
        };
        let mut raise = |target: Target, good: &[Target]| {
            let (floor, recorded) = (floors.of(target), record.floors.of(target));
            if floor.max(recorded) == floor {
                return;
            }
            let levels = good.iter().filter_map(|it| {
                let (_, verified) = self.check_manifest(platform, *it, floor).ok()?;
                Some(verified.level())
            });
            if let Some(lowest) = levels.reduce(Level::min) {
                *floors.of_mut(target) = floor.raised_to(recorded.min(lowest));
            }
        };
        let good = Slot::BOTH
            .into_iter()
            .filter(|it| record.slot(*it).is_good());
        let good: Vec<Target> = good.map(Target::from).collect();
        raise(Target::A, &good);
        raise(Target::Recovery, &[Target::Recovery]);
        floors
    }

    /// By the record's own account: the floor is above everything that was ever installed.
    pub(super) fn floor_looks_implausible(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let floor = record.floors.system;
            let slots = Slot::BOTH.map(|slot| record.slot(slot).contents());
            let mut levels = slots
                .into_iter()
                .flatten()
                .map(|contents| contents.level)
                .peekable();
            let admitted = |level: Level| {
                let known = level.keyring_serial.0 != 0;
                let keyring_serial = if known {
                    level.keyring_serial
                } else {
                    floor.keyring_serial
                };
                let level = Level {
                    keyring_serial,
                    ..level
                };
                floor.admits(level).is_ok()
            };
            levels.peek().is_some() && !levels.any(admitted)
        })
    }

    /// Rule 9: a recorded floor above every slot that verifies is damage, unless firmware's is not known, which may be
    /// as high. Returns whether it was, and has been replaced by the firmware's; the next commit writes that down.
    pub(super) fn drop_implausible_floor<P: Platform>(&mut self, platform: &mut P) -> bool {
        let (floor, firmware) = (self.floors().system, self.firmware.floors.system);
        if floor == firmware || !self.firmware.knows(Target::A) {
            return false;
        }
        let levels = Slot::BOTH.map(|slot| {
            let checked = self.check(platform, slot.into(), firmware);
            checked.ok().map(|(verified, _)| verified.level())
        });
        let mut levels = levels.into_iter().flatten().peekable();
        let implausible =
            levels.peek().is_some() && !levels.any(|level| floor.admits(level).is_ok());
        if implausible {
            let text = format!("security floor {floor} is above every slot; using {firmware}");
            self.replace_recorded_floor(platform, Target::A, text);
        }
        implausible
    }

    /// Rule 8 before rule 9, where nothing else starts at all: what only the record keeps from starting does. Recovery,
    /// of which there is one; and slots where firmware's floor is not known. Whether there is something.
    pub(super) fn give_way<P: Platform>(&mut self, platform: &mut P) -> bool {
        let below = core::mem::take(&mut self.below_floor);
        let (again, below): (Vec<_>, Vec<_>) = below.into_iter().partition(|target| {
            let only_recorded = self.floors().of(*target) != self.firmware.floors.of(*target);
            only_recorded && (target.slot().is_none() || !self.firmware.knows(*target))
        });
        self.below_floor = below;
        self.excluded.retain(|target| !again.contains(target));
        for target in &again {
            let floor = self.floors().of(*target);
            let firmware = self.firmware.floors.of(*target);
            let text = format!("{target} is below the floor {floor}, and nothing else starts");
            if floor != firmware {
                self.replace_recorded_floor(platform, *target, text);
            }
        }
        !again.is_empty()
    }

    fn replace_recorded_floor<P: Platform>(
        &mut self,
        platform: &mut P,
        target: Target,
        text: String,
    ) {
        if let Some(record) = &mut self.record {
            *record.floors.of_mut(target) = self.firmware.floors.of(target);
        }
        platform.log(format_args!("boot-state: {text}"));
        self.event(
            platform,
            Event::new(Stage::LOADER, EventKind::FLOOR_IMPLAUSIBLE, text),
        );
    }
}
