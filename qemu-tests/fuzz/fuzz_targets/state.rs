//! What Sternpost keeps on `state`, where anything may have written: docs/formats/state.md.
//!
//! No clock comes out earlier than the image or a time that was saved and can be; the list of what outlives
//! a start names directories below /state alone.
#![no_main]

use std::path::Component;

use arbitrary::Arbitrary;
use bootctl::os::clock::{Known, can_be, format, judge, parse as parse_time};
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
    let shows = clock.set_to.unwrap_or(input.found);
    assert!(shows >= known.built);
    let saved = known.saved.filter(|saved| can_be(*saved, known.built));
    assert!(saved.is_none_or(|saved| shows >= saved));
    // What was far ahead of all that is known is not believed.
    assert!(
        clock.set_to.is_none_or(|to| to > input.found
            || clock.implausible.is_some()
            || Some(to) == known.rtc)
    );
    if let Some(time) = parse_time(input.list) {
        assert!(input.list.starts_with('@') || parse_time(&format(time)) == Some(time));
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
