//! A date and time of day, as firmware gives it, as seconds since 1970.

/// Seconds since 1970-01-01 00:00 UTC of year, month, day and hour, minute, second in a zone for which UTC is local
/// time plus `zone_minutes` (UEFI 2.11, section 8.3). None for what is no date after 1970.
pub fn unix_seconds(
    [year, month, day]: [i64; 3],
    [hour, minute, second]: [i64; 3],
    zone_minutes: i64,
) -> Option<i64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days(year, month, day);
    [
        (days, 86_400),
        (hour, 3600),
        (minute.checked_add(zone_minutes)?, 60),
        (second, 1),
    ]
    .into_iter()
    .try_fold(0i64, |sum, (count, seconds)| {
        sum.checked_add(count.checked_mul(seconds)?)
    })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, in years that begin in March, so that a leap day is the
/// last.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "years of four digits are far from any limit"
)]
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(unix_seconds([1970, 1, 1], [0, 0, 0], 0), Some(0));
        assert_eq!(
            unix_seconds([2000, 2, 29], [12, 0, 0], 0),
            Some(951_825_600)
        );
        assert_eq!(
            unix_seconds([2026, 11, 22], [16, 28, 17], 0),
            Some(1_795_364_897)
        );
        assert_eq!(
            unix_seconds([2026, 11, 22], [16, 28, 17], -60),
            Some(1_795_361_297)
        );
    }

    #[test]
    fn nonsense_is_no_date() {
        assert_eq!(unix_seconds([0, 0, 0], [0, 0, 0], 0), None);
        assert_eq!(unix_seconds([1970, 13, 1], [0, 0, 0], 0), None);
    }
}
