//! The program: what it does, in order.
//!
//! ```text
//! disk it was loaded from; its own file damaged ──▶ the loader of the other ESP
//!    ▼
//! record, commit, verify (boot-core) → LoadImage → timer → hand-over → StartImage
//!    ▲                                                         │ came back
//!    └──────────────── recorded, the next one ◀────────────────┘
//! nothing left: the reason stays on the console for a moment, then the machine is reset
//! ```
//!
//! There is no error that stops here: what fails is said on the consoles, written to the event ring by `boot-core`
//! where it can be, and the next candidate is tried.

mod boot_disk;
mod clock;
mod console;
mod firmware;
mod machine;
mod measure;
mod medium;
mod panic;
mod self_check;
mod timer;
mod variables;

use alloc::format;
use alloc::string::{String, ToString};

use boot_core::boot::{Boot, Chosen};
use boot_core::event::EventKind;
use boot_core::hand_over::{self, HandOver, Times};
use boot_core::record;
use boot_core::trust::Trust;
use uefi::boot;

use boot_disk::BootDisk;
use clock::Clock;
use console::say;
use machine::{Machine, Uki};
use medium::Medium;
use timer::ProvenTimer;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the firmware's watchdog is set to. It covers the loader itself and what it starts up to ExitBootServices, which
/// takes a few seconds on the slowest machine that we know; much more means that something hangs. From there on it is
/// [`ProvenTimer`]'s.
const WATCHDOG_SECONDS: u64 = 120;

/// Where firmware starts us.
#[uefi::entry]
fn main() -> uefi::Status {
    let entered = firmware::ticks();
    let clock = Clock::calibrate();
    let start_us = clock.microseconds(entered);
    say!("loader {VERSION}");
    let kept = firmware::restart_on_exceptions();
    if !kept.is_empty() {
        say!("exceptions {kept:?} are left to firmware");
    }
    fail_as_built();
    let reason = run(clock, start_us);
    say!("{reason}; starting again");
    panic::reset()
}

/// Raises an exception of the processor, or panics, in a build for the tests of what that leads to (Cargo.toml).
#[cfg_attr(feature = "panics", expect(clippy::panic, reason = "what it is for"))]
fn fail_as_built() {
    #[cfg(feature = "faults")]
    firmware::raise_exception();
    #[cfg(feature = "panics")]
    panic!("as it was built to");
}

/// Starts whatever can be started. Returns only when nothing can, with the reason.
fn run(clock: Clock, start_us: u64) -> String {
    let watchdog = set_watchdog();
    let disk = match BootDisk::open() {
        Ok(disk) => disk,
        Err(error) => return error,
    };
    self_check::leave_if_damaged(&disk);
    let trust = match Trust::from_section(&firmware::trust_section()) {
        Ok(trust) => trust,
        Err(error) => return error.to_string(),
    };
    let secure_boot = variables::secure_boot();
    let from = disk
        .loaded_from()
        .map_or("a partition that is not in the table", |it| &it.label);
    say!(
        "disk {}, loaded from {from}; {}; Secure Boot {}",
        disk.id(),
        trust.summary(),
        if secure_boot { "on" } else { "off" }
    );
    let mut platform = Machine::new(&disk, clock, secure_boot);
    let mut boot = Boot::new(&trust);
    let mut timer = None;
    while let Some(chosen) = boot.next(&mut platform) {
        let target = chosen.target;
        if secure_boot && let Err(reason) = measure::program(chosen.image.bytes()) {
            boot.note(&mut platform, target, EventKind::NOT_MEASURED, &reason);
        }
        let image = match firmware::load_image(chosen.image.bytes(), secure_boot) {
            Ok(image) => image,
            Err(error) => {
                let reason = format!("firmware does not load the UKI: {}", error.status());
                boot.failed_to_start(&mut platform, target, reason);
                continue;
            }
        };
        // Only now: this start is counted, whatever comes of touching the timer.
        let armed = if chosen.may_arm_timer {
            let timer: &mut Option<ProvenTimer> = timer.get_or_insert_with(ProvenTimer::find);
            let drivers = &chosen.verified.manifest.contents.watchdogs;
            timer.as_mut().and_then(|timer| timer.arm(drivers))
        } else {
            None
        };
        let handed_over = HandOver {
            version: hand_over::VERSION,
            slot: target,
            why: chosen.why,
            nonce: chosen.nonce,
            recorded: chosen.recorded,
            disk: disk.id(),
            manifest: chosen.verified.digest,
            record_versions: [record::FORMAT, record::FORMAT],
            loader: VERSION.into(),
            secure_boot,
            watchdog_seconds: watchdog,
            timer: armed,
            rejected: boot.rejected().to_vec(),
            left_out: 0,
            times: Times {
                start_us,
                exec_us: clock.now(),
            },
            trust: Some(trust.digest()),
            floors: Some(boot.floors()),
            firmware_floors: boot.firmware_floors_known(),
        };
        let reason = match publish(&handed_over, &disk) {
            Ok(()) => {
                announce(&chosen, &handed_over.times);
                start(image)
            }
            Err(reason) => {
                let _ = boot::unload_image(image);
                reason
            }
        };
        // What was set for it, or left running by it, must not reset the next one half-way.
        timer.iter_mut().flatten().for_each(ProvenTimer::stop);
        set_watchdog();
        boot.failed_to_start(&mut platform, target, reason);
    }
    String::from("nothing can be started from this disk")
}

/// Starts a UKI that firmware has taken from our buffer. Returns only if it came back, with what it said.
fn start(image: uefi::Handle) -> String {
    match boot::start_image(image) {
        Ok(()) => "the UKI ended without starting a kernel".into(),
        Err(error) => format!("the UKI ended: {}", error.status()),
    }
}

/// Sets the watchdog; gives its seconds, 0 if the firmware has none.
fn set_watchdog() -> u64 {
    match restart_watchdog() {
        Ok(()) => WATCHDOG_SECONDS,
        Err(error) => {
            say!("no firmware watchdog: {}", error.status());
            0
        }
    }
}

/// The watchdog's time starts anew: each candidate has the whole of it.
fn restart_watchdog() -> uefi::Result {
    let seconds = usize::try_from(WATCHDOG_SECONDS).unwrap_or(usize::MAX);
    // Codes up to 0xffff are the firmware's own.
    boot::set_watchdog_timer(seconds, 0x1_0000, None)
}

/// Writes the volatile variables that the initrd and the running system read.
fn publish(hand_over: &HandOver, disk: &BootDisk) -> Result<(), String> {
    let partition = disk.loaded_from().map(|it| it.guid);
    variables::publish_boot_loader_interface(VERSION, partition, &hand_over.times);
    variables::hand_over(hand_over)
        .map_err(|error| format!("firmware does not take the hand-over: {}", error.status()))
}

/// The last line before the kernel's.
fn announce(chosen: &Chosen<Uki>, times: &Times) {
    say!(
        "starting {}, version {}, {} ms after the loader began",
        chosen.target,
        chosen.verified.manifest.version,
        times.exec_us.saturating_sub(times.start_us) / 1000
    );
}
