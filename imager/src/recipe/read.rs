//! Reads TOML with positions: collects every mistake, each with file, line and column.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One file that is being read, and what is wrong with it.
#[derive(Debug)]
pub(super) struct File<'a> {
    path: &'a Path,
    text: &'a str,
    mistakes: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
}

/// What is to be said about recipes, each as `FILE:LINE:COLUMN: message`.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What can never work.
    pub(super) mistakes: Vec<String>,
    /// What could be meant.
    pub(super) warnings: Vec<String>,
}

impl<'a> File<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// It can never work.
    pub(super) fn wrong(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.mistakes.push((at.start, message.into()));
    }

    /// It could be meant.
    pub(super) fn odd(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.warnings
            .push((at.start, format!("warning: {}", message.into())));
    }

    /// A path in the file is relative to the file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }

    /// Like [`Self::resolve`], of something that has to be there.
    pub(super) fn existing(&mut self, path: &str, at: &Range<usize>) -> PathBuf {
        let resolved = self.resolve(path);
        if !resolved.exists() {
            self.wrong(at, format!("there is no {}", resolved.display()));
        }
        resolved
    }

    /// Like [`Self::existing`], of a file.
    pub(super) fn existing_file(&mut self, path: &str, at: &Range<usize>) -> PathBuf {
        let resolved = self.existing(path, at);
        if resolved.is_dir() {
            self.wrong(
                at,
                format!("{} is a directory; a file is wanted", resolved.display()),
            );
        }
        resolved
    }

    /// What is to be said, in the order of the file. What a base says stands there once, however often it is extended.
    pub(super) fn finish(self, said: &mut Said) {
        let (path, text) = (self.path.display(), self.text);
        let placed = |mut list: Vec<(usize, String)>, into: &mut Vec<String>| {
            list.sort();
            for (offset, message) in list {
                let before = &text[..floor_boundary(text, offset)];
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
                let message = format!("{path}:{line}:{column}: {message}");
                if !into.contains(&message) {
                    into.push(message);
                }
            }
        };
        placed(self.mistakes, &mut said.mistakes);
        placed(self.warnings, &mut said.warnings);
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    (0..=offset)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0)
}

/// A table of which every field has to be asked for.
#[derive(Debug)]
pub(super) struct Table<'t, 'i> {
    pub(super) span: Range<usize>,
    /// How messages name it: `[kernel]`.
    name: String,
    table: &'t DeTable<'i>,
    known: BTreeSet<&'static str>,
}

/// A value and where it stands.
type Value<'t, 'i> = &'t Spanned<DeValue<'i>>;

impl<'t, 'i> Table<'t, 'i> {
    pub(super) fn new(name: &str, table: &'t DeTable<'i>, span: Range<usize>) -> Self {
        Self {
            span,
            name: name.to_owned(),
            table,
            known: BTreeSet::new(),
        }
    }

    /// The value of a field.
    pub(super) fn value(&mut self, field: &'static str) -> Option<Value<'t, 'i>> {
        self.known.insert(field);
        self.table
            .iter()
            .find(|(key, _)| key.get_ref().as_ref() == field)
            .map(|(_, value)| value)
    }

    /// A table in this one.
    pub(super) fn table(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> Option<Table<'t, 'i>> {
        let value = self.value(field)?;
        as_table(file, field, value)
    }

    /// A list of tables (`[[field]]`).
    pub(super) fn tables(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.value(field) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            file.wrong(
                &value.span(),
                format!("`{field}` is a list of tables; write each as [[{field}]]"),
            );
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| as_table(file, field, item))
            .collect()
    }

    /// A text, with its place.
    pub(super) fn text_at(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> Option<(String, Range<usize>)> {
        let value = self.value(field)?;
        as_text(file, field, value).map(|text| (text, value.span()))
    }

    pub(super) fn text(&mut self, file: &mut File<'_>, field: &'static str) -> Option<String> {
        self.text_at(file, field).map(|(text, _)| text)
    }

    /// A text that must be there.
    pub(super) fn required(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> (String, Range<usize>) {
        if self.value(field).is_none() {
            file.wrong(&self.span, format!("{} needs a field `{field}`", self.name));
        }
        self.text_at(file, field)
            .unwrap_or((String::new(), self.span.clone()))
    }

    /// A whole number that is not negative.
    pub(super) fn number(&mut self, file: &mut File<'_>, field: &'static str) -> Option<u64> {
        let value = self.value(field)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        if number.is_none() {
            let most = u64::MAX;
            let given = value.get_ref().as_integer();
            let given = given.map_or(kind(value), |it| it.as_str());
            file.wrong(
                &value.span(),
                format!("`{field}` is a whole number from 0 to {most}, not {given}"),
            );
        }
        number
    }

    pub(super) fn float(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> Option<(f64, Range<usize>)> {
        let value = self.value(field)?;
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => "",
        };
        let number = text.parse().ok();
        if number.is_none() {
            file.wrong(
                &value.span(),
                format!("`{field}` is a number, not {}", kind(value)),
            );
        }
        number.map(|number| (number, value.span()))
    }

    pub(super) fn flag(&mut self, file: &mut File<'_>, field: &'static str) -> Option<bool> {
        let value = self.value(field)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            file.wrong(
                &value.span(),
                format!("`{field}` is true or false, not {}", kind(value)),
            );
        }
        flag
    }

    /// A list of texts, with their places.
    pub(super) fn list_at(
        &mut self,
        file: &mut File<'_>,
        field: &'static str,
    ) -> Vec<(String, Range<usize>)> {
        let Some(value) = self.value(field) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            file.wrong(
                &value.span(),
                format!("`{field}` is a list of texts, not {}", kind(value)),
            );
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| as_text(file, field, item).map(|text| (text, item.span())))
            .collect()
    }

    pub(super) fn list(&mut self, file: &mut File<'_>, field: &'static str) -> Vec<String> {
        self.list_at(file, field)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    }

    /// Every field that nobody asked for is a mistake.
    pub(super) fn finish(self, file: &mut File<'_>) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(name) {
                continue;
            }
            let meant = self
                .known
                .iter()
                .map(|known| (distance(name, known), known))
                .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
                .min();
            let hint = match meant {
                Some((_, meant)) => format!("did you mean `{meant}`?"),
                None => format!(
                    "it has {}",
                    self.known.iter().copied().collect::<Vec<_>>().join(", ")
                ),
            };
            file.wrong(
                &key.span(),
                format!("{} has no field `{name}`; {hint}", self.name),
            );
        }
    }
}

fn as_table<'t, 'i>(
    file: &mut File<'_>,
    field: &str,
    value: Value<'t, 'i>,
) -> Option<Table<'t, 'i>> {
    let Some(table) = value.get_ref().as_table() else {
        file.wrong(
            &value.span(),
            format!("`{field}` is a table, not {}", kind(value)),
        );
        return None;
    };
    Some(Table::new(&format!("`{field}`"), table, value.span()))
}

fn as_text(file: &mut File<'_>, field: &str, value: Value<'_, '_>) -> Option<String> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        file.wrong(
            &value.span(),
            format!("`{field}` is a text, not {}", kind(value)),
        );
    }
    if text == Some("") {
        file.wrong(&value.span(), format!("`{field}` is empty"));
        return None;
    }
    text.map(str::to_owned)
}

fn kind(value: Value<'_, '_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let best = (diagonal + usize::from(x != *y))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    row[b.len()]
}
