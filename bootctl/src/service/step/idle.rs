//! What recovery that nobody asked for does next, while nobody uses it. Pure.
//!
//! Whoever repairs a machine by hand is not to be surprised: everything here waits until nobody has used it for a while.

use std::time::Duration;

use crate::os::clock::Pace;

/// How long nobody uses the machine before it installs by itself, and before it starts what was installed. Also the
/// pause between two tries.
pub const PAUSE: Duration = Duration::from_secs(60);

/// How long nobody uses the machine before it tries its slots again. The operator's guide, docs/reference/bootctl.md and
/// the help of `recovery.install` in a profile say fifteen minutes too.
pub const LEFT_ALONE: Duration = Duration::from_secs(15 * 60);

/// How long an installation may take: most of a gigabyte at 40 kB/s. After a restart it goes on where it was.
pub const LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// How far the installation has come that the profile asks recovery for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installation {
    /// The profile asks for none, or there is a slot that is whole.
    NotWanted,
    /// It has failed, and the pause after that is not over.
    Pausing,
    /// It may begin.
    Due,
    /// It has run for so long.
    UnderWay(Duration),
    /// A slot holds what the profile names.
    Done,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look again later.
    Wait,
    /// Begin to install.
    Install,
    /// Restart, into what was installed.
    StartInstalled,
    /// Restart: what kept the slots from starting may have gone.
    TrySlots,
}

/// Decides, where nobody has used the machine for `unused`.
#[must_use]
pub fn next(installation: Installation, unused: Duration, pace: Pace) -> Next {
    let quiet = unused >= pace.of(PAUSE);
    match installation {
        Installation::Due if quiet => Next::Install,
        Installation::Done if quiet => Next::StartInstalled,
        Installation::UnderWay(time) if time < LIMIT => Next::Wait,
        _ if unused >= LEFT_ALONE => Next::TrySlots,
        _ => Next::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(unused: Duration, installation: Installation) -> Next {
        next(installation, unused, Pace::default())
    }

    #[test]
    fn nothing_happens_while_somebody_uses_the_machine() {
        for installation in [
            Installation::NotWanted,
            Installation::Pausing,
            Installation::Due,
            Installation::UnderWay(LIMIT),
            Installation::Done,
        ] {
            assert_eq!(after(PAUSE - SECOND, installation), Next::Wait);
        }
    }

    #[test]
    fn a_minute_without_anybody_is_enough_to_install_and_to_start_what_was_installed() {
        assert_eq!(after(PAUSE, Installation::Due), Next::Install);
        assert_eq!(after(PAUSE, Installation::Done), Next::StartInstalled);
        assert_eq!(after(PAUSE, Installation::NotWanted), Next::Wait);
    }

    #[test]
    fn slots_are_tried_again_after_a_quarter_of_an_hour_but_not_amid_an_installation() {
        for installation in [Installation::NotWanted, Installation::Pausing] {
            assert_eq!(after(LEFT_ALONE - SECOND, installation), Next::Wait);
            assert_eq!(after(LEFT_ALONE, installation), Next::TrySlots);
        }
        let under_way = Installation::UnderWay(LIMIT - SECOND);
        assert_eq!(after(LEFT_ALONE, under_way), Next::Wait);
        assert_eq!(
            after(LEFT_ALONE, Installation::UnderWay(LIMIT)),
            Next::TrySlots
        );
    }

    #[test]
    fn a_machine_in_a_hurry_shortens_the_pause_alone() {
        let hurried = Pace(10);
        assert_eq!(next(Installation::Due, PAUSE / 10, hurried), Next::Install);
        assert_eq!(
            next(Installation::NotWanted, LEFT_ALONE / 10, hurried),
            Next::Wait
        );
    }
}
