//! How an answer leaves: text for people, one JSON object for programs, always the same facts.

use std::io::Write as _;
use std::process::ExitCode;

use boot_core::Digest;
use serde_json::{Value, json};

use crate::failure::{Code, Failure};

/// What a command has to say.
#[derive(Debug)]
pub struct Outcome {
    /// For people.
    pub text: String,
    /// For programs: an object.
    pub json: Value,
    /// What to exit with instead of 0, where the answer itself is "no".
    pub code: Option<Code>,
}

impl Outcome {
    /// An answer that ends with 0.
    pub fn new(text: String, json: Value) -> Self {
        Self {
            text,
            json,
            code: None,
        }
    }
}

/// The first digits of a digest: enough for a person to tell two apart.
pub fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

/// Prints a result and gives the exit code.
pub fn finish(result: Result<Outcome, Failure>, as_json: bool) -> ExitCode {
    let mut out = std::io::stdout();
    match result {
        Ok(outcome) => {
            // A reader that went away (`| head`) is not an error.
            let _ = if as_json {
                writeln!(out, "{:#}", outcome.json)
            } else if outcome.text.is_empty() {
                Ok(())
            } else {
                writeln!(out, "{}", outcome.text)
            };
            outcome
                .code
                .map_or(ExitCode::SUCCESS, |c| ExitCode::from(c as u8))
        }
        Err(failure) => {
            if as_json {
                let error = json!({"error": {
                    "code": failure.code as u8,
                    "name": failure.code,
                    "doing": failure.doing,
                    "what": failure.what,
                    "next": failure.next,
                }});
                let _ = writeln!(out, "{error:#}");
            }
            eprintln!("bootctl: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}
