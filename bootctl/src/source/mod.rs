//! Where a bundle comes from: a file, a pipe, an HTTP server.
//!
//! All three look the same from outside: bytes at rising offsets. What can jump (a file, a server
//! with ranges) skips what is not wanted; what cannot reads over it.

mod file;
mod http;
mod pipe;

use std::path::Path;

use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// A bundle's bytes.
pub trait Source {
    /// What it is, for messages.
    fn name(&self) -> &str;

    /// Its length, where that is known before the end is reached.
    fn size(&self) -> Option<u64>;

    /// Fills `buf` from `offset`, which never falls below the end of what was read before.
    ///
    /// # Errors
    /// [`crate::failure::Code::Source`], after trying again where that can help.
    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Says that everything up to `end` is going to be read, and what follows may not be.
    fn expect_until(&mut self, _end: u64) {}

    /// True if nothing follows `offset`.
    fn ends_at(&mut self, offset: u64) -> Result<bool>;
}

/// Opens what was named on the command line.
pub fn open(name: &str, progress: &Progress) -> Result<Box<dyn Source>> {
    if name == "-" {
        Ok(Box::new(pipe::Pipe::new(
            "standard input",
            std::io::stdin(),
        )))
    } else if name.starts_with("http://") || name.starts_with("https://") {
        Ok(Box::new(http::Http::open(
            name,
            progress.clone(),
            http::Retry::default(),
        )?))
    } else if let Some((scheme, _)) = name.split_once("://") {
        Err(Failure::new(
            crate::failure::Code::Usage,
            format!("{scheme}:// is not a source that bootctl reads"),
        )
        .next("give a file, - for standard input, or an http:// or https:// address"))
    } else {
        file::open(Path::new(name))
    }
}

/// The message for a source that ends too early.
fn too_short(name: &str, offset: u64, len: usize, end: u64) -> Failure {
    Failure::source(format!(
        "{name} ends after {end} bytes; {len} bytes at {offset} were wanted"
    ))
    .next("the bundle was cut short: fetch or copy it again, then run the same command; what is already in the slot is kept")
}
