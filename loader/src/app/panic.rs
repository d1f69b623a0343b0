//! A panic is a bug, and still no reason to stand still: it is shown, and the machine starts again.

use core::fmt::{Arguments, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use uefi::runtime::{self, ResetType};
use uefi::{Status, boot, system};

use super::firmware;

/// How long a message stays before the machine is reset.
pub(super) const SHOW: Duration = Duration::from_secs(5);

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    end(format_args!("error in the loader: {info}"))
}

/// Says what went wrong and resets the machine. If something goes wrong while it is said, the machine is reset at once.
pub(super) fn end(what: Arguments<'_>) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        reset_at_once()
    }
    // No allocation: memory may be what ran out.
    if firmware::has_console() {
        system::with_stdout(|console| {
            let _ = writeln!(console, "sternpost: {what}; starting again");
        });
    }
    reset()
}

/// Waits long enough for a person to read the last line, then resets the machine.
pub(super) fn reset() -> ! {
    boot::stall(SHOW);
    reset_at_once()
}

/// Resets the machine. Needs nothing but runtime services.
pub(super) fn reset_at_once() -> ! {
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}
