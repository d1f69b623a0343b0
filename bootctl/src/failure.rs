//! What a failure looks like: what was being done, what went wrong, what to do next, and the
//! exit code that says the same to a program.

use std::error::Error;
use std::fmt;

use serde::Serialize;

/// The documented, stable exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Code {
    /// Something failed that has no code of its own.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// A rule, the state of the machine or the quarantine forbids it.
    Refused = 3,
    /// A signature, digest, product, architecture, layout, floor or expiry does not check.
    Verification = 4,
    /// The source could not be read: network, server, file, pipe.
    Source = 5,
    /// It is larger than the slot.
    DoesNotFit = 6,
    /// Another `bootctl` installs, or does not let go of the boot state.
    Locked = 7,
    /// Not started by Sternpost.
    NotSternpost = 8,
    /// The profile is not valid.
    Profile = 9,
}

/// All codes with what they mean, for the help, the reference and the tests.
pub const CODES: [(Code, &str); 9] = [
    (
        Code::Failed,
        "failed, the message says why; for `health`: not healthy, or not yet",
    ),
    (Code::Usage, "the command line was wrong"),
    (
        Code::Refused,
        "refused: a rule, the state of the machine or the quarantine forbids it",
    ),
    (
        Code::Verification,
        "verification failed: signature, digest, product, architecture, layout, floor or expiry",
    ),
    (
        Code::Source,
        "the source could not be read: network, server, file or pipe",
    ),
    (Code::DoesNotFit, "it does not fit into the slot"),
    (
        Code::Locked,
        "another bootctl installs, or does not let go of the boot state",
    ),
    (
        Code::NotSternpost,
        "this machine was not started by Sternpost",
    ),
    (Code::Profile, "the profile is not valid"),
];

/// A failure as a person and a program get it.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What to exit with.
    #[serde(rename = "name")]
    pub code: Code,
    /// What was being done, and on what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// What went wrong.
    pub what: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The error that it is about, where there is one; `what` says the same.
    #[serde(skip)]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a command returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with its code and what went wrong.
    pub fn new(code: Code, what: impl fmt::Display) -> Self {
        Self {
            code,
            doing: None,
            what: what.to_string(),
            next: None,
            source: None,
        }
    }

    /// An error that has no code of its own.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self::by(Code::Failed, error)
    }

    pub fn by(code: Code, error: impl Error + Send + Sync + 'static) -> Self {
        let failure = Self::new(code, &error);
        Self {
            source: Some(Box::new(error)),
            ..failure
        }
    }

    /// Something failed that has no code of its own.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::new(Code::Failed, what)
    }

    /// A rule forbids it.
    pub fn refused(what: impl fmt::Display) -> Self {
        Self::new(Code::Refused, what)
    }

    /// A check failed.
    pub fn verification(what: impl fmt::Display) -> Self {
        Self::new(Code::Verification, what)
    }

    /// The source could not be read.
    pub fn source(what: impl fmt::Display) -> Self {
        Self::new(Code::Source, what)
    }

    /// The error that it is about, where there is one.
    pub fn error(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|it| it as _)
    }

    /// Adds what to do next, unless something nearer to the cause already said so.
    #[must_use]
    pub fn next(mut self, next: impl fmt::Display) -> Self {
        self.next.get_or_insert_with(|| next.to_string());
        self
    }

    /// Puts what was being done in front.
    #[must_use]
    pub fn doing(mut self, doing: impl fmt::Display) -> Self {
        self.doing = Some(match self.doing.take() {
            Some(inner) => format!("{doing}: {inner}"),
            None => doing.to_string(),
        });
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(doing) = &self.doing {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl Error for Failure {
    /// What lies behind the error that it is about: that one's own words are in [`Failure::what`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref()?.source()
    }
}

/// Says what was being done when an error passes by.
pub trait Doing<T> {
    /// Puts `doing` in front of the error, as a [`Code::Failed`] unless it already has a code.
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.doing(doing()))
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Failure::of(e).doing(doing()))
    }
}

impl<T> Doing<T> for Result<T, zbus::Error> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Failure::of(e).doing(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_error_that_it_is_about() {
        let missing = std::fs::read("/does/not/exist").doing(|| "reading it");
        let failure = missing.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "reading it: No such file or directory (os error 2)"
        );
        let error = failure.error().unwrap().downcast_ref::<std::io::Error>();
        assert_eq!(error.unwrap().kind(), std::io::ErrorKind::NotFound);
        assert!(failure.source().is_none(), "its words would be said twice");
    }
}
