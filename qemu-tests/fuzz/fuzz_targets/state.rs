//! What Sternpost keeps on `state`, where anything may have written: docs/formats/state.md.
//!
//! A time that was saved never sets the clock back, nor further than what is known can bear; the list of what outlives
//! a start names directories below /state alone.
#![no_main]

use std::path::Component;

use arbitrary::Arbitrary;
use bootctl::os::clock::{Known, format, judge};
use initrd::persist::parse;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    found: i64,
    /// Signed, so at least possible.
    built: u32,
    saved: Option<i64>,
    rtc: Option<i64>,
    list: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let known = Known {
        built: input.built.into(),
        saved: input.saved,
        rtc: input.rtc,
    };
    let clock = judge(input.found, known);
    if let Some(to) = clock.raised_to {
        assert!(to > input.found && to >= known.built);
    } else {
        assert!(input.found >= known.built && Some(input.found) >= known.saved);
    }
    assert!(!format(input.found).is_empty());

    let (entries, refused) = parse(input.list);
    assert!(entries.len() + refused.len() <= input.list.lines().count());
    assert!(entries.is_sorted_by(|one, next| one.path < next.path));
    for entry in &entries {
        let mut parts = entry.path.components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))));
    }
});
