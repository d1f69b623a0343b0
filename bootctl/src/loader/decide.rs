//! What is done about an update of the loader when the machine has started and its slot is good. Pure.

use super::{Esp, Update, UpdateStage};

/// What is known at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The machine has started since the update was written.
    pub restarted: bool,
    /// The ESP whose loader started it.
    pub started_from: Esp,
    /// The ESP that gets the new loader last has it already.
    pub other_has_it: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The start that decides is still to come.
    Wait,
    /// Both ESPs hold the new loader.
    Finished,
    /// The new loader started this machine: the other ESP gets it too.
    Spread,
    /// It did not, for this reason: its ESP gets the loader back that did.
    PutBack(String),
}

/// Decides. The slot that runs is good: a loader that starts nothing good has proved nothing.
pub fn next(update: &Update, seen: &Seen) -> Next {
    let started_from = seen.started_from;
    if !seen.restarted {
        return Next::Wait;
    }
    match (started_from == update.esp, update.stage) {
        (true, _) if seen.other_has_it => Next::Finished,
        (true, _) => Next::Spread,
        // Whatever the other one holds, this one may hold nothing.
        (false, UpdateStage::Writing) => {
            Next::PutBack(format!("writing {} did not come to an end", update.esp))
        }
        // The copy was complete, and has started the machine as well.
        (false, UpdateStage::Written) if seen.other_has_it => Next::Finished,
        (false, UpdateStage::Written) => Next::PutBack(format!(
            "the machine started from {started_from} instead of {}: firmware did not start the new loader, or it did not get as far as a good slot",
            update.esp
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_core::Digest;

    fn update(stage: UpdateStage) -> Update {
        Update {
            format: 1,
            esp: Esp::B,
            loader: Digest::ZERO,
            old: None,
            version: "2.0".parse().unwrap(),
            manifest: Digest::ZERO,
            boot_id: "one".into(),
            stage,
        }
    }

    fn seen(restarted: bool, started_from: Esp, other_has_it: bool) -> Seen {
        Seen {
            restarted,
            started_from,
            other_has_it,
        }
    }

    #[test]
    fn every_case() {
        for stage in [UpdateStage::Writing, UpdateStage::Written] {
            let next = |restarted, from, has| next(&update(stage), &seen(restarted, from, has));
            for has in [false, true] {
                assert_eq!(next(false, Esp::A, has), Next::Wait);
                assert_eq!(next(false, Esp::B, has), Next::Wait);
            }
            assert_eq!(next(true, Esp::B, false), Next::Spread);
            assert_eq!(next(true, Esp::B, true), Next::Finished);
        }
        let reason = |stage, has| match next(&update(stage), &seen(true, Esp::A, has)) {
            Next::PutBack(why) => why,
            other => panic!("{other:?}"),
        };
        for has in [false, true] {
            let why = reason(UpdateStage::Writing, has);
            assert_eq!(why, "writing esp-b did not come to an end");
        }
        let why = reason(UpdateStage::Written, false);
        assert!(why.contains("started from esp-a instead of esp-b"), "{why}");
        let both = next(&update(UpdateStage::Written), &seen(true, Esp::A, true));
        assert_eq!(both, Next::Finished);
    }

    /// Which ESP is written, if one is: never the one that started the machine.
    #[test]
    fn the_esp_that_started_the_machine_is_never_written() {
        for stage in [UpdateStage::Writing, UpdateStage::Written] {
            for from in Esp::BOTH {
                for has in [false, true] {
                    let update = update(stage);
                    let written = match next(&update, &seen(true, from, has)) {
                        Next::Spread => Some(update.esp.other()),
                        Next::PutBack(_) => Some(update.esp),
                        _ => None,
                    };
                    assert_ne!(written, Some(from));
                }
            }
        }
    }
}
