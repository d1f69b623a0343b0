//! A bundle in a file, of which only what is wanted is read: docs/formats/bundle.md. What must hold:
//! `sternpost_fuzz::install`.
#![no_main]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;

use bootctl::progress::Progress;
use bootctl::source::Reach;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::install::{Changes, check};

/// A file without a name.
static FILE: LazyLock<File> = LazyLock::new(|| tempfile::tempfile().expect("a temporary file"));

fuzz_target!(|changes: Changes<'_>| {
    check(&changes, |bytes| {
        FILE.set_len(0).expect("it is ours");
        FILE.write_all_at(&bytes, 0).expect("there is room");
        let path = format!("/proc/self/fd/{}", FILE.as_raw_fd());
        bootctl::source::open(&path, &Progress::silent(), &Reach::default()).ok()
    });
});
