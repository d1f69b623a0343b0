//! Time since the processor's counter began, which is reset on every machine we know.

use core::time::Duration;

use boot_core::calendar;

use super::firmware;

/// How long the counter is watched where its rate has to be measured. A thousandth of a second gives the rate to
/// better than one percent, which is all that a boot's timeline needs.
const CALIBRATION: Duration = Duration::from_millis(1);

/// A clock in microseconds.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    ticks_per_second: u64,
}

impl Clock {
    /// Finds the counter's rate: from the processor where it says so, else measured against the firmware's stall.
    pub(super) fn calibrate() -> Clock {
        let measured = || {
            let before = firmware::ticks();
            uefi::boot::stall(CALIBRATION);
            firmware::ticks().wrapping_sub(before).saturating_mul(1000)
        };
        Clock {
            ticks_per_second: firmware::ticks_per_second().unwrap_or_else(measured).max(1),
        }
    }

    /// The time of `ticks` in microseconds.
    pub(super) fn microseconds(self, ticks: u64) -> u64 {
        let scaled = u128::from(ticks) * 1_000_000 / u128::from(self.ticks_per_second);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Now, in microseconds.
    pub(super) fn now(self) -> u64 {
        self.microseconds(firmware::ticks())
    }
}

/// Seconds since 1970 by the firmware's clock; 0 if it has none or says nonsense. No decision is made by it.
pub(super) fn unix_seconds() -> i64 {
    let Ok(time) = uefi::runtime::get_time() else {
        return 0;
    };
    calendar::unix_seconds(
        [time.year().into(), time.month().into(), time.day().into()],
        [
            time.hour().into(),
            time.minute().into(),
            time.second().into(),
        ],
        time.time_zone().map_or(0, i64::from),
    )
    .unwrap_or(0)
}
