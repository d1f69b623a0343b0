//! What is wrong with a profile, for people and for programs.

use core::fmt;
use core::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Which value: `network.interfaces[0].addresses`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What was meant, or what to write instead.
    pub help: Option<String>,
    /// Bytes of the file that it is about.
    #[serde(skip)]
    pub(crate) span: Range<usize>,
}

/// Everything that is wrong with one file, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// Name of the file, as given to [`crate::parse`].
    pub file: String,
    /// What is wrong.
    pub errors: Vec<Diagnostic>,
    #[serde(skip)]
    source: String,
}

impl Diagnostics {
    pub(crate) fn new(file: &str, source: &str, mut errors: Vec<Diagnostic>) -> Self {
        errors.sort_by_key(|error| (error.span.start, error.span.end));
        errors.dedup();
        Self {
            file: file.into(),
            errors,
            source: source.into(),
        }
    }

    /// The messages with the lines that they are about, with terminal colours or without.
    #[must_use]
    pub fn to_text(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for error in &self.errors {
            let snippet = Snippet::source(self.source.as_str())
                .path(self.file.as_str())
                .annotation(AnnotationKind::Primary.span(error.span.clone()));
            let mut report: Vec<Group<'_>> = vec![
                Level::ERROR
                    .primary_title(error.message.as_str())
                    .element(snippet),
            ];
            if let Some(help) = &error.help {
                report.push(Group::with_title(
                    Level::HELP.secondary_title(help.as_str()),
                ));
            }
            text.push_str(&renderer.render(&report));
            text.push_str("\n\n");
        }
        let count = match self.errors.len() {
            1 => "one error".to_owned(),
            n => format!("{n} errors"),
        };
        text.push_str(&format!(
            "{}: {count}; nothing of this profile was used\n",
            self.file
        ));
        text
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(false))
    }
}

impl std::error::Error for Diagnostics {}
