//! Setting the hardware clock, which runs on in UTC while the machine is off. All that is unsafe in `bootctl` is here.
//! Source: Documentation/admin-guide/rtc.rst and include/uapi/linux/rtc.h of Linux.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl, opcode};

use super::clock::civil;

/// `struct rtc_time`: as that of C, the month from 0, the year from 1900; the kernel does not look at the last three.
#[repr(C)]
#[derive(Debug, Default, PartialEq, Eq)]
struct RtcTime {
    second: i32,
    minute: i32,
    hour: i32,
    day: i32,
    month: i32,
    year: i32,
    week_day: i32,
    year_day: i32,
    is_summer: i32,
}

fn rtc_time(seconds: i64) -> Option<RtcTime> {
    let [year, month, day, hour, minute, second] = civil(seconds).map(|it| i32::try_from(it).ok());
    Some(RtcTime {
        second: second?,
        minute: minute?,
        hour: hour?,
        day: day?,
        month: month?.checked_sub(1)?,
        year: year?.checked_sub(1900)?,
        ..RtcTime::default()
    })
}

/// Sets the first hardware clock to a time in Unix seconds.
pub(super) fn set(seconds: i64) -> io::Result<()> {
    const RTC_SET_TIME: rustix::ioctl::Opcode = opcode::write::<RtcTime>(b'p', 0x0a);
    let time = rtc_time(seconds).ok_or(io::ErrorKind::InvalidInput)?;
    let clock = File::open(Path::new("/dev/rtc0"))?;
    // SAFETY: RTC_SET_TIME reads one `struct rtc_time`, which `RtcTime` is, field by field, and keeps no pointer to it.
    // A file that is no hardware clock answers ENOTTY.
    unsafe { ioctl(&clock, Setter::<RTC_SET_TIME, _>::new(time)) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_as_the_kernel_counts_it() {
        let time = RtcTime {
            second: 9,
            minute: 5,
            hour: 16,
            day: 22,
            month: 10,
            year: 126,
            ..RtcTime::default()
        };
        assert_eq!(rtc_time(1_795_363_509), Some(time));
        assert_eq!(rtc_time(i64::MAX / 2), None);
        assert_eq!(size_of::<RtcTime>(), 36);
    }
}
