//! A tree against the JSON Schema: everything that is wrong is collected, and what is right becomes
//! the JSON value that the types are made from.
//!
//! Only what `schemars` writes for our own types is understood: references, objects that name all
//! their fields or have values of one type, lists, alternatives of constants, alternatives of objects
//! told apart by one field, optional values, bounds, and the formats in [`super::scalar`]. A test
//! makes sure that the schema contains nothing else.

use serde_json::{Map, Value};

use super::tree::{Entry, Kind, Node};
use crate::diagnostics::Fault;
use crate::scalar::check_format;

/// Checks `node` against `schema`, whose references are looked up in `root`.
pub(crate) struct Checker<'a> {
    root: &'a Value,
    pub(crate) faults: Vec<Fault>,
    /// Spans that hold secrets.
    pub(crate) secrets: Vec<core::ops::Range<usize>>,
    /// Spans of the values of fields that are not known.
    pub(crate) unknown: Vec<core::ops::Range<usize>>,
    path: Vec<String>,
    /// How many secrets the value lies in that is being looked at.
    within_secrets: usize,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(root: &'a Value) -> Self {
        Self {
            root,
            faults: Vec::new(),
            secrets: Vec::new(),
            unknown: Vec::new(),
            path: Vec::new(),
            within_secrets: 0,
        }
    }

    fn report(&mut self, span: &core::ops::Range<usize>, message: String, help: Option<String>) {
        self.faults.push(Fault {
            path: self.path.clone(),
            help,
            ..Fault::new(span.clone(), message, None)
        });
    }

    fn below<T>(&mut self, part: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part.to_owned());
        let result = work(self);
        self.path.pop();
        result
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        // The schema is our own; eight references in a row would be a mistake of ours.
        for _ in 0..8 {
            let target = schema
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix('#'));
            match target.and_then(|pointer| self.root.pointer(pointer)) {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    /// The value, or `None` if something in it was wrong (and reported).
    pub(crate) fn value(&mut self, node: &Node, schema: &'a Value) -> Option<Value> {
        let schema = self.resolve(schema);
        if is_null(node) && allows_null(schema) {
            return Some(Value::Null);
        }
        if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
            let real = any
                .iter()
                .find(|s| s.get("type").and_then(Value::as_str) != Some("null"));
            return self.value(node, real?);
        }
        if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            return self.alternatives(node, variants);
        }
        match type_of(schema) {
            "object" => self.object(node, schema, None),
            "array" => self.list(node, schema),
            "string" => self.string(node, schema),
            "integer" => self.integer(node, schema),
            "boolean" => self.boolean(node),
            _ => None,
        }
    }

    fn wanted(&mut self, node: &Node, wanted: &str) {
        let found = match &node.kind {
            _ if is_null(node) => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        };
        let help = match (wanted, &node.kind) {
            ("a list", Kind::Scalar { text, .. }) if !is_null(node) => {
                Some(format!("write it as a list of one: [{text}]"))
            }
            ("a list", Kind::Map(_)) => Some("put `- ` before each entry".to_owned()),
            _ if is_null(node) => Some("give it a value or remove the line".to_owned()),
            _ => None,
        };
        // Where a whole block is wrong, its first line is enough.
        let start = node.span.start;
        let span = match &node.kind {
            Kind::Scalar { .. } => node.span.clone(),
            Kind::List(_) | Kind::Map(_) => start..start,
        };
        let help = help.filter(|_| self.within_secrets == 0);
        self.report(
            &span,
            format!("{} is {wanted}, this is {found}", self.subject()),
            help,
        );
    }

    /// What the message is about: the last part of the path.
    fn subject(&self) -> String {
        match self.path.last() {
            None => "a profile".to_owned(),
            Some(part) if part.parse::<usize>().is_ok() => {
                let list = self.path.iter().rev().find(|p| p.parse::<usize>().is_err());
                list.map_or_else(
                    || "each entry".to_owned(),
                    |l| format!("each entry of `{l}`"),
                )
            }
            Some(part) => format!("`{part}`"),
        }
    }

    fn alternatives(&mut self, node: &Node, variants: &'a [Value]) -> Option<Value> {
        let constants: Vec<&str> = variants
            .iter()
            .filter_map(|v| v.get("const").and_then(Value::as_str))
            .collect();
        if constants.len() == variants.len() {
            return self.constant(node, &constants);
        }
        let tag = variants.first().and_then(tag_of)?;
        let Kind::Map(entries) = &node.kind else {
            self.wanted(node, "a mapping");
            return None;
        };
        let names: Vec<&str> = variants.iter().filter_map(|v| tag_value(v, tag)).collect();
        let Some(entry) = entries.iter().find(|entry| entry.key == tag) else {
            let help = format!("add `{tag}: …`, one of: {}", names.join(", "));
            self.report(
                &first_line(node),
                format!("`{tag}` is missing in {}", self.subject()),
                Some(help),
            );
            return None;
        };
        let chosen = self.below(tag, |this| this.constant(&entry.value, &names))?;
        let variant = variants
            .iter()
            .find(|v| tag_value(v, tag) == chosen.as_str())?;
        self.object(node, variant, Some(tag))
    }

    fn constant(&mut self, node: &Node, known: &[&str]) -> Option<Value> {
        let Kind::Scalar { text, .. } = &node.kind else {
            self.wanted(node, &format!("one of: {}", known.join(", ")));
            return None;
        };
        if known.contains(&text.as_str()) {
            return Some(Value::String(text.clone()));
        }
        let help = closest(text, known.iter().copied()).map_or_else(
            || format!("known: {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        self.report(
            &node.span,
            format!("{} cannot be `{}`", self.subject(), shorten(text)),
            Some(help),
        );
        None
    }

    fn object(&mut self, node: &Node, schema: &'a Value, tag: Option<&str>) -> Option<Value> {
        let Kind::Map(entries) = &node.kind else {
            self.wanted(node, "a mapping");
            return None;
        };
        let before = self.faults.len();
        let mut object = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for entry in entries {
            let property = properties.and_then(|p| p.get(&entry.key));
            if let Some((tag, variant)) = tag.filter(|t| *t == entry.key).zip(property) {
                object.insert(
                    tag.to_owned(),
                    variant.get("const").cloned().unwrap_or_default(),
                );
                continue;
            }
            let other = schema
                .get("additionalProperties")
                .filter(|other| other.is_object());
            let Some(property) = property.or(other) else {
                self.unknown_field(entry, properties);
                continue;
            };
            let secret = is_secret(self.resolve(property));
            if secret {
                self.secrets.push(entry.value.span.clone());
            }
            self.within_secrets += usize::from(secret);
            let value = self.below(&entry.key, |this| this.value(&entry.value, property));
            self.within_secrets -= usize::from(secret);
            if let Some(value) = value {
                object.insert(entry.key.clone(), value);
            }
        }
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for name in required.filter_map(Value::as_str) {
            if !entries.iter().any(|entry| entry.key == name) {
                let known = properties
                    .and_then(|p| p.get(name))
                    .map(|s| self.example(s, name));
                let message = format!("`{name}` is missing in {}", self.subject());
                self.report(&first_line(node), message, known);
            }
        }
        (self.faults.len() == before).then_some(Value::Object(object))
    }

    /// What a missing field could look like.
    fn example(&self, schema: &'a Value, name: &str) -> String {
        let schema = self.resolve(schema);
        let variants = schema
            .get("oneOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let constants: Vec<&str> = variants.filter_map(|v| v.get("const")?.as_str()).collect();
        if !constants.is_empty() {
            return format!("add `{name}: …`, one of: {}", constants.join(", "));
        }
        let example = schema
            .pointer("/examples/0")
            .or_else(|| schema.get("minimum"));
        match example {
            Some(Value::String(text)) => format!("add it, for example `{name}: {text}`"),
            Some(other) => format!("add it, for example `{name}: {other}`"),
            None => format!("add `{name}:` with its fields"),
        }
    }

    fn unknown_field(&mut self, entry: &Entry, properties: Option<&'a Map<String, Value>>) {
        let names: Vec<&str> = properties
            .into_iter()
            .flat_map(|p| p.keys())
            .map(String::as_str)
            .collect();
        let help = closest(&entry.key, names.iter().copied())
            .map(|near| format!("did you mean `{near}`?"))
            .unwrap_or_else(|| format!("known here: {}", names.join(", ")));
        let message = format!("{} has no field `{}`", self.subject(), shorten(&entry.key));
        self.report(&entry.key_span, message, Some(help));
        if let Some(fault) = self.faults.last_mut() {
            fault.unknown = Some(entry.key.clone());
        }
        self.unknown.push(entry.value.span.clone());
    }

    fn list(&mut self, node: &Node, schema: &'a Value) -> Option<Value> {
        let Kind::List(items) = &node.kind else {
            self.wanted(node, "a list");
            return None;
        };
        let before = self.faults.len();
        if let Some(most) = schema.get("maxItems").and_then(Value::as_u64)
            && items.len() as u64 > most
        {
            let message = format!(
                "{} has at most {most} entries, not {}",
                self.subject(),
                items.len()
            );
            self.report(&first_line(node), message, None);
        }
        let item_schema = schema.get("items")?;
        let values: Vec<Value> = items
            .iter()
            .enumerate()
            .filter_map(|(n, item)| {
                self.below(&n.to_string(), |this| this.value(item, item_schema))
            })
            .collect();
        (self.faults.len() == before).then_some(Value::Array(values))
    }

    fn string(&mut self, node: &Node, schema: &'a Value) -> Option<Value> {
        let Kind::Scalar { text, plain } = &node.kind else {
            self.wanted(node, "text");
            return None;
        };
        if is_null(node) {
            self.wanted(node, "text");
            return None;
        }
        if *plain && matches!(text.as_str(), "true" | "false") {
            let help = format!("put it in quotes if it is meant as text: \"{text}\"");
            self.report(
                &node.span,
                format!("{} is text, this is true or false", self.subject()),
                Some(help),
            );
            return None;
        }
        let format = schema
            .get("format")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            self.secrets.push(node.span.clone());
        }
        if let Err(problem) = check_format(format, text) {
            self.report(&node.span, format!("{}: {problem}", self.subject()), None);
            return None;
        }
        Some(Value::String(text.clone()))
    }

    fn integer(&mut self, node: &Node, schema: &'a Value) -> Option<Value> {
        let number = match &node.kind {
            Kind::Scalar { text, plain: true } => text.parse::<i64>().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wanted(node, "a whole number");
            return None;
        };
        let least = schema
            .get("minimum")
            .and_then(Value::as_i64)
            .unwrap_or(i64::MIN);
        let most = schema
            .get("maximum")
            .and_then(Value::as_i64)
            .unwrap_or(i64::MAX);
        if number < least || number > most {
            let range = if least == most {
                format!("{least}")
            } else {
                format!("from {least} to {most}")
            };
            self.report(
                &node.span,
                format!("{} must be {range}, not {number}", self.subject()),
                None,
            );
            return None;
        }
        Some(Value::from(number))
    }

    fn boolean(&mut self, node: &Node) -> Option<Value> {
        let Kind::Scalar { text, plain } = &node.kind else {
            self.wanted(node, "true or false");
            return None;
        };
        match (text.as_str(), plain) {
            ("true", true) => return Some(Value::Bool(true)),
            ("false", true) => return Some(Value::Bool(false)),
            _ => {}
        }
        let meant = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => Some("write `true`, without quotes"),
            "no" | "off" | "n" | "false" | "0" => Some("write `false`, without quotes"),
            _ => None,
        };
        let message = format!(
            "{} is true or false, not `{}`",
            self.subject(),
            shorten(text)
        );
        self.report(&node.span, message, meant.map(Into::into));
        None
    }
}

fn is_null(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { text, plain: true }
        if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
}

fn allows_null(schema: &Value) -> bool {
    let by_type = |s: &Value| match s.get("type") {
        Some(Value::String(t)) => t == "null",
        Some(Value::Array(types)) => types.iter().any(|t| t == "null"),
        _ => false,
    };
    by_type(schema)
        || schema
            .get("anyOf")
            .and_then(Value::as_array)
            .is_some_and(|any| any.iter().any(by_type))
}

/// Whether a value is shown nowhere.
fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
}

/// The type that is not `null`.
fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(t)) => t,
        Some(Value::Array(types)) => types
            .iter()
            .filter_map(Value::as_str)
            .find(|t| *t != "null")
            .unwrap_or_default(),
        _ => "",
    }
}

/// The field with a constant: it tells alternatives apart.
fn tag_of(variant: &Value) -> Option<&str> {
    let properties = variant.get("properties")?.as_object()?;
    properties
        .iter()
        .find(|(_, schema)| schema.get("const").is_some())
        .map(|(name, _)| name.as_str())
}

fn tag_value<'v>(variant: &'v Value, tag: &str) -> Option<&'v str> {
    variant.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// Where a mapping or list begins.
fn first_line(node: &Node) -> core::ops::Range<usize> {
    node.span.start..node.span.start
}

/// At most 40 characters, for messages.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The name that was probably meant: at most a third of its letters differ.
fn closest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    names
        .map(|name| (distance(&typed, &name.replace('-', "_")), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance, with a swap of neighbours counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let above = rows
                .get(i)
                .and_then(|r| r.get(j + 1))
                .copied()
                .unwrap_or(usize::MAX - 1);
            let diagonal = rows
                .get(i)
                .and_then(|r| r.get(j))
                .copied()
                .unwrap_or(usize::MAX - 1);
            let left = row.last().copied().unwrap_or(usize::MAX - 1);
            let mut best = (above + 1)
                .min(left + 1)
                .min(diagonal + usize::from(x != y));
            if i > 0
                && j > 0
                && Some(&x) == b.get(j - 1)
                && a.get(i - 1) == Some(&y)
                && let Some(before) = rows.get(i - 1).and_then(|r| r.get(j - 1))
            {
                best = best.min(before + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last()
        .and_then(|row| row.last())
        .copied()
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn swapped_letters_count_once() {
        assert_eq!(distance("hsotname", "hostname"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn the_name_that_was_meant() {
        let names = ["hostname", "network", "time", "users"];
        assert_eq!(closest("host-name", names.into_iter()), Some("hostname"));
        assert_eq!(closest("user", names.into_iter()), Some("users"));
        assert_eq!(closest("colour", names.into_iter()), None);
    }
}
