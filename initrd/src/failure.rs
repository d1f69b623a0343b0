//! What a failure of the boot looks like: what was being done, on what, why it failed, what happens next.

use std::error::Error;
use std::fmt::{self, Display};

/// What happens after a failure when nothing better is known.
const NEXT: &str =
    "the machine restarts; if this start keeps failing, the loader takes the other slot";

/// A failure that ends this start.
#[derive(Debug)]
pub struct Failure {
    /// What was being done, as in "mounting the root filesystem".
    pub doing: String,
    /// On what: a path, a partition, a module.
    pub on: String,
    /// What went wrong: an error that was there, or words.
    pub why: Box<dyn Error + Send + Sync>,
    /// What happens next, or what to do.
    pub next: String,
}

impl Failure {
    /// A failure with the usual next step.
    pub fn new(
        doing: impl Display,
        on: impl Display,
        why: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            doing: doing.to_string(),
            on: on.to_string(),
            why: why.into(),
            next: NEXT.to_owned(),
        }
    }

    /// The same failure with another next step.
    #[must_use]
    pub fn next(mut self, next: impl Display) -> Self {
        self.next = next.to_string();
        self
    }

    /// The failure without its next step: what goes into the event ring and boot.json.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{} {}: {}", self.doing, self.on, self.why)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason(), self.next)
    }
}

impl Error for Failure {
    /// What lies behind [`why`](Self::why), which is in the text already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.why.source()
    }
}

/// Turns any error into a [`Failure`].
pub trait Context<T> {
    /// Says what was being done and on what.
    ///
    /// # Errors
    /// The error that was there.
    fn context(self, doing: impl Display, on: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, doing: impl Display, on: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(doing, on, error))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl Display, on: impl Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::new(doing, on, "not there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_on_what_why_and_next() {
        let failure = Failure::new("mounting", "/dev/vda9", "bad magic").next("restarting");
        assert_eq!(
            failure.to_string(),
            "mounting /dev/vda9: bad magic; restarting"
        );
        assert_eq!(failure.reason(), "mounting /dev/vda9: bad magic");
    }

    #[test]
    fn the_error_that_was_there_is_kept() {
        let gone = std::fs::read("/nonexistent").context("reading", "/nonexistent");
        let why = gone.unwrap_err().why;
        let kind = why.downcast_ref().map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::NotFound));
    }
}
