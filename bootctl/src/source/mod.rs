//! Where a bundle comes from: a file, a pipe, an HTTP server, the other slot.
//!
//! All of them look the same from outside: bytes at rising offsets. What can jump (a file, a server
//! with ranges) skips what is not wanted; what cannot reads over it.
//!
//! Nothing that a source gives is believed: what installs compares it with what was signed (head of [`crate::install`]),
//! and a chunk that differs ends the installation.

mod file;
pub mod http;
pub mod pipe;
mod rate;
mod slot;
pub mod web;

use std::path::Path;
use std::time::{Duration, Instant};

use self::http::Retry;
use self::web::Web;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::progress::Progress;

pub use slot::InSlot;

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

/// How servers are asked.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    pub retry: Retry,
    pub web: Web,
}

impl Reach {
    /// As this machine is set up.
    pub fn of(machine: &Machine) -> Self {
        Self {
            retry: Retry::at(machine.pace),
            web: Web::of(&machine.paths()),
        }
    }

    /// The same for so long from now on, where nobody is there to say it again.
    #[must_use]
    pub fn for_as_long_as(mut self, patience: Option<Duration>) -> Self {
        self.retry.until = patience.map(|patience| Instant::now() + patience);
        self
    }
}

/// Opens what was named on the command line.
pub fn open(name: &str, progress: &Progress, reach: &Reach) -> Result<Box<dyn Source>> {
    if name == "-" {
        Ok(Box::new(pipe::Pipe::new(
            "standard input",
            std::io::stdin(),
        )))
    } else if name.starts_with("http://") || name.starts_with("https://") {
        Ok(Box::new(http::Http::open(
            name,
            progress.clone(),
            reach.retry.clone(),
            &reach.web,
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

/// A source as it is shown and kept: without user, password, query and fragment, which may be
/// secrets. A name that is not an address is shown as it is.
pub fn shown(source: &str) -> String {
    let Some((scheme, rest)) = source.split_once("://") else {
        return source.to_owned();
    };
    let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let bracketed = authority.ends_with(']');
    let broken = !bracketed && !port.bytes().all(|b| b.is_ascii_digit());
    // A password with a '/', '?' or '#' in it ends the authority too early.
    let rest = if broken || authority.contains('@') {
        let within = if broken { rest } else { authority };
        let skip = within.rfind('@').map_or(0, |at| at + 1);
        rest.get(skip..).unwrap_or_default()
    } else {
        rest
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

/// The message for a source that ends too early.
fn too_short(name: &str, offset: u64, len: usize, end: u64) -> Failure {
    Failure::source(format!(
        "{name} ends after {end} bytes; {len} bytes at {offset} were wanted"
    ))
    .next("the bundle was cut short: fetch or copy it again, then run the same command; what is already in the slot is kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secrets() {
        for (source, wanted) in [
            ("/media/usb/a?b@c.spb", "/media/usb/a?b@c.spb"),
            ("-", "-"),
            ("http://host/a.spb", "http://host/a.spb"),
            ("http://host:8080/a@b.spb", "http://host:8080/a@b.spb"),
            ("https://me:secret@host:1/a.spb", "https://host:1/a.spb"),
            ("https://secret@host/a@b.spb", "https://host/a@b.spb"),
            ("https://host/a.spb?sig=secret#secret", "https://host/a.spb"),
            ("https://host?sig=secret", "https://host"),
            ("https://me:sec/ret@host/a.spb", "https://host/a.spb"),
            ("https://me:sec?ret@host/a.spb", "https://host/a.spb"),
            ("http://[::1]:80/a.spb?secret", "http://[::1]:80/a.spb"),
            ("http://[::1]/a@b.spb", "http://[::1]/a@b.spb"),
            ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ] {
            assert_eq!(shown(source), wanted);
        }
    }
}
