//! What is wrong with a profile, for people and for programs.

use core::fmt;
use core::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Most errors that one report holds, and most warnings. Whoever has more has the wrong file.
const MOST: usize = 100;

/// Longest line, in bytes, that is shown.
const LONGEST_LINE: usize = 500;

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
    span: Range<usize>,
}

/// Everything that is to be said about one file, in the order of the file. Passwords and private keys in the file are
/// not shown.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// Name of the file, as given to [`crate::parse`].
    pub file: String,
    /// What is wrong: the first hundred. Without any, the file can be used.
    pub errors: Vec<Diagnostic>,
    /// What can be used, and is hardly meant: the first hundred.
    pub warnings: Vec<Diagnostic>,
    /// How many more errors there are.
    pub omitted: usize,
    /// The file, its secrets overwritten.
    #[serde(skip)]
    source: String,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It can never work: the profile is refused.
    Error,
    /// It could be meant: the profile is used, and somebody should look.
    Warning,
}

/// Something wrong with a text, as the steps of reading report it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) severity: Severity,
    pub(crate) span: Range<usize>,
    pub(crate) path: Vec<String>,
    /// The key below `path` that is not known, where that is what is wrong.
    pub(crate) unknown: Option<String>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    /// One that is in no field in particular.
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>, help: Option<&str>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            path: Vec::new(),
            unknown: None,
            message: message.into(),
            help: help.map(Into::into),
        }
    }
}

/// Something wrong with a value that has the right shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the profile is refused for it.
    pub severity: Severity,
    /// Where, from the top of the profile: `["network", "interfaces", "0"]`.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    pub(crate) fn new<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        message: String,
        help: Option<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            path: path.into_iter().map(Into::into).collect(),
            message,
            help,
        }
    }

    /// One that does not keep the profile from being used.
    pub(crate) fn warning<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        message: String,
        help: &str,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::new(path, message, Some(help.into()))
        }
    }
}

impl Diagnostics {
    pub(crate) fn new(
        file: &str,
        text: &str,
        mut faults: Vec<Fault>,
        secrets: &[Range<usize>],
    ) -> Self {
        faults.sort_by_key(|fault| (fault.span.start, fault.span.end));
        faults.dedup();
        let of = |severity| faults.iter().filter(move |it| it.severity == severity);
        let first = |severity| of(severity).take(MOST).map(|it| place(text, it)).collect();
        Self {
            file: one_line(file),
            omitted: of(Severity::Error).count().saturating_sub(MOST),
            errors: first(Severity::Error),
            warnings: first(Severity::Warning),
            source: without_secrets(text, secrets),
        }
    }

    /// The messages with the lines that they are about, with terminal colours or without. Nothing where there is
    /// nothing to say.
    #[must_use]
    pub fn to_text(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let errors = self.errors.iter().map(|it| (Level::ERROR, it));
        let warnings = self.warnings.iter().map(|it| (Level::WARNING, it));
        let mut all: Vec<_> = errors.chain(warnings).collect();
        all.sort_by_key(|(_, it)| it.span.start);
        let mut text = String::new();
        for (level, said) in all {
            let title = level.primary_title(said.message.as_str());
            let mut report: Vec<Group<'_>> = vec![match self.line_of(said) {
                Some((line, span)) => title.element(
                    Snippet::source(line)
                        .path(self.file.as_str())
                        .line_start(said.line)
                        .annotation(AnnotationKind::Primary.span(span)),
                ),
                None => title.element(
                    Origin::path(self.file.as_str())
                        .line(said.line)
                        .char_column(said.column),
                ),
            }];
            if let Some(help) = &said.help {
                report.push(Group::with_title(
                    Level::HELP.secondary_title(help.as_str()),
                ));
            }
            text.push_str(&renderer.render(&report));
            text.push_str("\n\n");
        }
        if let Some(count) = self.count() {
            text.push_str(&format!("{}: {count}\n", self.file));
        }
        text
    }

    /// How many errors and warnings there are, and what that means.
    fn count(&self) -> Option<String> {
        let number = |n: usize, what: &str| match n {
            0 => None,
            1 => Some(format!("one {what}")),
            n => Some(format!("{n} {what}s")),
        };
        let warnings = number(self.warnings.len(), "warning");
        let Some(mut errors) = number(self.errors.len() + self.omitted, "error") else {
            return warnings.map(|it| format!("{it}; this profile can be used"));
        };
        if self.omitted > 0 {
            errors.push_str(&format!(", the first {} of them above", self.errors.len()));
        }
        let warnings = warnings.map_or_else(String::new, |it| format!(" and {it}"));
        Some(format!(
            "{errors}{warnings}; nothing of this profile was used"
        ))
    }

    /// The line that a message is about and the part of it that is wrong, if it is short enough to be
    /// shown.
    fn line_of(&self, said: &Diagnostic) -> Option<(&str, Range<usize>)> {
        let before = self.source.get(..said.span.start)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.source.get(start..)?.split('\n').next()?;
        let span = said.span.start.checked_sub(start)?..said.span.end.checked_sub(start)?;
        (line.len() <= LONGEST_LINE).then_some((line, span))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics")
            .field("file", &self.file)
            .field("errors", &self.errors)
            .field("warnings", &self.warnings)
            .finish()
    }
}

impl std::error::Error for Diagnostics {}

/// Control characters would let a file write on the terminal of whoever reads the message.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn place(text: &str, fault: &Fault) -> Diagnostic {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at = at.saturating_sub(1);
        }
        at
    };
    let start = boundary(fault.span.start);
    // A message is about one line: of a longer value, its first.
    let rest = text.get(start..).unwrap_or_default();
    let line_end = start + rest.find(['\n', '\r']).unwrap_or(rest.len());
    let end = boundary(fault.span.end).clamp(start, line_end);
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let mut path = String::new();
    for part in &fault.path {
        if part.parse::<usize>().is_ok() {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(part);
        }
    }
    Diagnostic {
        line,
        column,
        path: one_line(&path),
        message: one_line(&fault.message),
        help: fault.help.as_deref().map(one_line),
        span: start..end,
    }
}

/// The text with secrets overwritten, byte for byte, so that every place stays where it is. Beside
/// the values that are known to be secret this takes whatever follows `password…:` in a line, and of an
/// address its user, password and query, because a file that is not valid YAML has no values.
pub(crate) fn without_secrets(text: &str, secrets: &[Range<usize>]) -> String {
    let mut hidden = vec![false; text.len()];
    let mut hide = |range: Range<usize>| {
        let end = range.end.min(text.len());
        if let Some(bytes) = hidden.get_mut(range.start.min(end)..end) {
            bytes.fill(true);
        }
    };
    for range in secrets {
        hide(range.clone());
    }
    let mut offset = 0_usize;
    let mut private_key = false;
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        if let Some(word) = lower.find("password")
            && let Some(colon) = lower.get(word..).and_then(|rest| rest.find(':'))
        {
            hide(offset + word + colon + 1..offset + line.len());
        }
        if let Some(address) = line.find("://") {
            let (from, end) = (offset + address + 3, offset + line.len());
            let rest = &text[from..end];
            hide(from..from + rest.rfind('@').unwrap_or(0));
            hide(from + rest.find('?').unwrap_or(rest.len())..end);
        }
        private_key |= line.contains("BEGIN") && line.contains("PRIVATE KEY");
        if private_key {
            hide(offset..offset + line.len());
        }
        private_key &= !line.contains("END");
        offset += line.len();
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() && hidden.get(at) == Some(&true) {
            out.extend(core::iter::repeat_n('*', c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    out
}
