//! A bundle read front to back, from a pipe: docs/formats/bundle.md. What must hold: `sternpost_fuzz::install`.
#![no_main]

use std::io::Read;

use bootctl::source::pipe::Pipe;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::install::{Changes, check};

/// A pipe that gives at most `step` bytes at a time.
struct Slowly {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Slowly {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.bytes[self.at..];
        let length = rest.len().min(buf.len()).min(self.step);
        buf[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

fuzz_target!(|input: (Changes<'_>, u16)| {
    let (changes, step) = input;
    check(&changes, |bytes| {
        let reader = Slowly {
            bytes,
            at: 0,
            step: usize::from(step) + 1,
        };
        Some(Box::new(Pipe::new("pipe", reader)))
    });
});
