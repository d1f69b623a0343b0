//! YAML as a tree in which every value knows its place.
//!
//! A profile is plain data: one document, no anchors, aliases, tags, no key twice. Depth and size
//! are bounded, so hostile text costs no more than it weighs.

use core::ops::Range;
use std::collections::BTreeSet;

use crate::diagnostics::Fault;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Longest profile in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// Deepest nesting; the schema itself needs no more than eight levels.
const MAX_DEPTH: usize = 32;

/// A value and the bytes of the file that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Text; `plain` if it stands there without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: Node,
}

/// Stands for what a profile does not have, where it was: no field has this name, and none takes it for a value.
const NOTHING: &str = "\u{fffd}";

impl Node {
    /// The value at a path, or the deepest one on the way to it.
    pub(crate) fn nearest(&self, path: &[String]) -> &Self {
        let mut node = self;
        for part in path {
            match node.child(part) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// What a part of a path leads to.
    pub(crate) fn child(&self, part: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == part)
                .map(|entry| &entry.value),
            Kind::List(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
            Kind::Scalar { .. } => None,
        }
    }

    /// Takes out what lies at these paths, and says whether there was anything; what follows in a list moves up.
    pub(crate) fn cut(&mut self, paths: &BTreeSet<Vec<String>>) -> bool {
        self.cut_below(&mut Vec::new(), paths)
    }

    fn cut_below(&mut self, at: &mut Vec<String>, paths: &BTreeSet<Vec<String>>) -> bool {
        let mut any = false;
        let mut stays = |part: &str, node: &mut Self| {
            at.push(part.to_owned());
            let is_cut = paths.contains(&*at);
            any |= is_cut || node.cut_below(at, paths);
            at.pop();
            !is_cut
        };
        match &mut self.kind {
            Kind::Map(entries) => entries.retain_mut(|it| stays(&it.key, &mut it.value)),
            Kind::List(items) => {
                let mut n = 0_usize..;
                items.retain_mut(|it| {
                    let n = n.next().unwrap_or_default();
                    stays(&n.to_string(), it)
                });
            }
            Kind::Scalar { .. } => {}
        }
        any
    }
}

/// Reads one document: its tree, and every key that occurs twice (the first one is in the tree), anchor, alias and tag.
///
/// # Errors
/// The first thing that keeps the text from being a tree.
pub(crate) fn read(text: &str) -> Result<(Node, Vec<Fault>), Vec<Fault>> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "this file has {} bytes; a profile has at most {MAX_BYTES}",
            text.len()
        );
        return Err(vec![Fault::new(0..0, message, None)]);
    }
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str(text),
        faults: Vec::new(),
    };
    match reader.document() {
        Ok(root) => Ok((root, reader.faults)),
        Err(Stop) => Err(reader.faults),
    }
}

/// Reading cannot go on; the reason is among the faults.
struct Stop;

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Range<usize>)>, Stop> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((event, span))) => match event {
                    Event::StreamStart | Event::Anchor(..) | Event::Comment(..) => {}
                    event => return Ok(Some((event, self.bytes(&span)))),
                },
                Some(Err(error)) => {
                    self.scan_error(&error);
                    return Err(Stop);
                }
            }
        }
    }

    fn scan_error(&mut self, error: &ScanError) {
        let marker = error.marker();
        let at = marker
            .byte_offset()
            .unwrap_or_else(|| self.byte_offset(marker.index()));
        let line = self.text.get(..at.min(self.text.len())).unwrap_or_default();
        let line = line.rsplit('\n').next().unwrap_or_default();
        let help = if line.contains('\t')
            || self.text.get(at..).is_some_and(|t| t.starts_with('\t'))
        {
            "YAML is indented with spaces, never with tabs"
        } else {
            "often the line before is the cause: its indentation, a missing `:` or an open quote"
        };
        self.fail(
            at..at,
            format!("this is not valid YAML: {}", error.info()),
            Some(help),
        );
    }

    /// Byte offset of the n-th character.
    fn byte_offset(&self, n: usize) -> usize {
        self.text
            .char_indices()
            .nth(n)
            .map_or(self.text.len(), |(offset, _)| offset)
    }

    fn bytes(&self, span: &Span) -> Range<usize> {
        span.byte_range().unwrap_or_else(|| {
            self.byte_offset(span.start.index())..self.byte_offset(span.end.index())
        })
    }

    fn fail(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<&str>) {
        self.faults.push(Fault::new(span, message, help));
    }

    fn stop<T>(
        &mut self,
        span: Range<usize>,
        message: &str,
        help: Option<&str>,
    ) -> Result<T, Stop> {
        self.fail(span, message, help);
        Err(Stop)
    }

    fn document(&mut self) -> Result<Node, Stop> {
        let empty = Some("the shortest profile is `version: 1`");
        match self.next()? {
            Some((Event::DocumentStart(..), _)) => {}
            _ => return self.stop(0..0, "this file is empty", empty),
        }
        let root = self.node(0)?;
        match self.next()? {
            Some((Event::DocumentEnd, _)) => {}
            Some((_, span)) => return self.stop(span, "unexpected text after the profile", None),
            None => return Ok(root),
        }
        match self.next()? {
            None | Some((Event::StreamEnd, _)) => Ok(root),
            Some((_, span)) => self.stop(
                span,
                "a second document begins here",
                Some("a profile is one document"),
            ),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Stop> {
        match self.next()? {
            Some((event, span)) => self.node_from(event, span, depth),
            None => {
                let end = self.text.len();
                self.stop(end..end, "the file ends in the middle of a value", None)
            }
        }
    }

    fn node_from(
        &mut self,
        event: Event<'a>,
        span: Range<usize>,
        depth: usize,
    ) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return self.stop(span, "nested too deeply for a profile", None);
        }
        if event.anchor_id().is_some_and(|id| id != 0) {
            self.fail(
                span.clone(),
                "anchors (`&name`) are not used in profiles",
                Some("write the value out"),
            );
        }
        if event.tag().is_some() {
            self.fail(
                span.clone(),
                "tags (`!name`) are not used in profiles",
                Some("remove the tag"),
            );
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                Ok(Node { span, kind })
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Some((Event::SequenceEnd, end)) => {
                            let span = span.start..end.end.max(span.end);
                            return Ok(Node {
                                span,
                                kind: Kind::List(items),
                            });
                        }
                        Some((event, at)) => items.push(self.node_from(event, at, depth + 1)?),
                        None => return self.stop(span, "this list has no end", None),
                    }
                }
            }
            Event::MappingStart(..) => self.map(span, depth),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.fail(
                    span.clone(),
                    "aliases (`*name`) are not used in profiles",
                    Some("write the value out"),
                );
                Ok(Node {
                    span,
                    kind: Kind::Scalar {
                        text: NOTHING.to_owned(),
                        plain: false,
                    },
                })
            }
            _ => self.stop(span, "a value is missing here", None),
        }
    }

    fn map(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = BTreeSet::new();
        loop {
            let (event, at) = match self.next()? {
                Some((Event::MappingEnd, end)) => {
                    let span = span.start..end.end.max(span.end);
                    return Ok(Node {
                        span,
                        kind: Kind::Map(entries),
                    });
                }
                Some(pair) => pair,
                None => return self.stop(span, "this mapping has no end", None),
            };
            let key_node = self.node_from(event, at, depth + 1)?;
            let value = self.node(depth + 1)?;
            let Kind::Scalar { text: key, .. } = key_node.kind else {
                self.fail(key_node.span.clone(), "a key is plain text", None);
                entries.push(Entry {
                    key: NOTHING.to_owned(),
                    key_span: key_node.span,
                    value,
                });
                continue;
            };
            if !keys.insert(key.clone()) {
                self.fail(
                    key_node.span,
                    format!("`{key}` is given twice"),
                    Some("keep one of them"),
                );
                continue;
            }
            entries.push(Entry {
                key,
                key_span: key_node.span,
                value,
            });
        }
    }
}
