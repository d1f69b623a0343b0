//! Locks, as `imager build` reads them.
//!
//! What is read is written to what is read as the same, and names blobs of the cache by digests alone.
#![no_main]

use imager::debian::lock::Lock;
use imager::workshop::cache::is_sha256;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(lock) = Lock::parse(text) else {
        return;
    };
    for lock in std::iter::successors(Some(&lock), |lock| lock.recovery.as_deref()) {
        for set in lock.sets.values() {
            assert!(is_sha256(&set.kernel.sha256));
            assert!(
                set.packages
                    .iter()
                    .all(|package| is_sha256(&package.sha256))
            );
        }
    }
    let text = lock.to_text().expect("it was read");
    let again = Lock::parse(&text);
    assert!(again.is_ok_and(|again| again == lock), "{text}");
});
