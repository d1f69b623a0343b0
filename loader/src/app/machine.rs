//! The machine as `boot-core` sees it: the partitions of one disk, memory for a UKI, a nonce, the consoles, the floors.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use boot_core::boot::Platform;
use boot_core::boot::variable::{Answer, FloorVariable, Write};
use boot_core::{Device, Digest, Nonce, Target, hashed, nonce};

use super::clock::{self, Clock};
use super::firmware::{self, Pages};
use super::medium::Medium;
use super::{console, variables};

pub(super) struct Machine<M: Medium> {
    clock: Clock,
    secure_boot: bool,
    boot_state: Option<M::Part>,
    slots: [(Target, Option<M::Part>); 3],
}

impl<M: Medium> Machine<M> {
    /// Opens what is on `medium`. What is missing is reported, and done without: the record can be lost, a slot can be
    /// lost, and something still starts.
    pub(super) fn new(medium: &M, clock: Clock, secure_boot: bool) -> Self {
        let said = |found: Result<M::Part, String>| {
            found.inspect_err(|error| console::say!("{error}")).ok()
        };
        Machine {
            clock,
            secure_boot,
            boot_state: said(medium.boot_state()),
            slots: Target::ALL.map(|target| (target, said(medium.slot(target)))),
        }
    }
}

impl<M: Medium> Platform for Machine<M> {
    type Device = M::Part;
    type Image = Uki;

    fn boot_state(&mut self) -> Option<&mut M::Part> {
        self.boot_state.as_mut()
    }

    fn slot(&mut self, target: Target) -> Option<&mut M::Part> {
        self.slots
            .iter_mut()
            .find(|(t, _)| *t == target)
            .and_then(|(_, partition)| partition.as_mut())
    }

    fn load_uki(
        &mut self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<(Uki, Digest), String> {
        // Firmware without one was told of at the start.
        let _ = super::restart_watchdog();
        let clock = self.clock;
        let before = clock.now();
        let device = self.slot(target).ok_or("its partition is missing")?;
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        let block = usize::try_from(device.block_size()).map_err(|error| error.to_string())?;
        // Whole blocks are read, and whole pages are more than whole blocks.
        let rounded = length.next_multiple_of(block);
        let mut pages = Pages::new(rounded)
            .map_err(|error| format!("no memory for the UKI: {}", error.status()))?;
        let buffer = pages.get_mut(..rounded).unwrap_or_default();
        let digest =
            hashed::read(device, offset, buffer, length).map_err(|error| error.to_string())?;
        self.log(format_args!(
            "{target}: read and hashed {} KiB in {} ms",
            length / 1024,
            clock.now().saturating_sub(before) / 1000
        ));
        Ok((Uki { pages, length }, digest))
    }

    fn nonce(&mut self) -> Nonce {
        let mut random = [0; 32];
        if !firmware::random(&mut random) {
            console::say!(
                "firmware has no random numbers; the nonce comes from clocks and counters"
            );
        }
        // Where the stack and the heap lie differs between starts on some firmware; it costs nothing to use.
        let address = (&raw const random as usize as u64).to_le_bytes();
        let clock = clock::unix_seconds().to_le_bytes();
        let count = firmware::monotonic_count().to_le_bytes();
        let ticks = firmware::ticks().to_le_bytes();
        nonce::mix(&[&random, &address, &clock, &count, &ticks])
    }

    fn log(&mut self, line: fmt::Arguments<'_>) {
        console::print(line);
    }

    fn now(&mut self) -> Option<i64> {
        Some(clock::unix_seconds()).filter(|seconds| *seconds > 0)
    }

    fn secure_boot(&mut self) -> bool {
        self.secure_boot
    }

    fn floor_variable(&mut self, variable: FloorVariable) -> Answer {
        variables::floor(variable)
    }

    fn write_floor(&mut self, variable: FloorVariable, write: Write) -> Result<(), String> {
        variables::write_floor(variable, write)
            .map_err(|error| format!("cannot be written: {}", error.status()))
    }
}

/// A UKI in memory: the very bytes that were hashed.
pub(super) struct Uki {
    pages: Pages,
    length: usize,
}

impl Uki {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.pages.get(..self.length).unwrap_or_default()
    }
}
