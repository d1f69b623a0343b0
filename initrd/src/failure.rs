//! What a failure of the boot looks like: what was being done, on what, why it failed, what happens next.

use std::fmt::{self, Display};

/// What happens after a failure when nothing better is known.
const NEXT: &str =
    "the machine restarts; if this start keeps failing, the loader takes the other slot";

/// A failure that ends this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done, as in "mounting the root filesystem".
    pub doing: String,
    /// On what: a path, a partition, a module.
    pub on: String,
    /// What went wrong.
    pub why: String,
    /// What happens next, or what to do.
    pub next: String,
}

impl Failure {
    /// A failure with the usual next step.
    pub fn new(doing: impl Display, on: impl Display, why: impl Display) -> Self {
        Self {
            doing: doing.to_string(),
            on: on.to_string(),
            why: why.to_string(),
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

impl std::error::Error for Failure {}

/// Turns any error into a [`Failure`].
pub trait Context<T> {
    /// Says what was being done and on what.
    ///
    /// # Errors
    /// The error that was there, in words.
    fn context(self, doing: impl Display, on: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
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
}
