//! Text to [`Profile`], or to everything that is wrong with it.
//!
//! | [`Reading`] | what is wrong |
//! | --- | --- |
//! | `Strict`, `For` an image | refuses the whole: a machine is what its profile says, or it is not changed |
//! | `Lenient` | is left out, and named; the rest counts |
//!
//! Leniently it is read again and again, each time without what was wrong the last time, until nothing is: each of these
//! readings is the strict one, so that what comes out is a profile that would have been accepted as it stands.

use core::ops::Range;
use std::collections::BTreeSet;

use serde_json::Value;

use super::check::Checker;
use super::tree::{self, Entry, Kind, Node};
use super::{Profile, json_schema, validate};
use crate::diagnostics::{Fault, Problem, Severity};
use crate::{Diagnostics, EffectiveFacts, ImageFacts};

/// How a profile is read.
#[derive(Debug, Clone, Copy)]
pub enum Reading<'a> {
    /// One mistake refuses the whole of it.
    Strict,
    /// The same, and it is refused for what this image cannot be.
    For(&'a ImageFacts),
    /// As recovery reads it, which may be older than the profile: what it needs ([`Profile::of_host`]), without every
    /// field that it does not know or that is wrong. The errors beside the profile say what was left out. Refused is
    /// only what is not a mapping of YAML.
    Lenient,
}

/// What recovery has no use for: nothing that stands there is to spoil the rest.
const NOT_OF_HOST: [&str; 3] = ["kubernetes", "vm", "health"];

/// The text of a profile with its secrets overwritten, byte for byte; what the schema does not know may be one. Of a text
/// that is no profile at all nothing is given.
pub(crate) fn without_secrets(text: &str) -> Option<String> {
    let (root, _) = tree::read(text).ok()?;
    let schema = json_schema();
    let mut checker = Checker::new(&schema);
    checker.value(&root, &schema);
    let hidden = [checker.secrets, checker.unknown].concat();
    Some(crate::diagnostics::without_secrets(text, &hidden))
}

/// The profile and what is to be said of it, or everything that is wrong with it.
pub(crate) fn read(
    text: &str,
    file: &str,
    reading: Reading<'_>,
) -> Result<(Profile, Diagnostics), Diagnostics> {
    let (root, faults) =
        tree::read(text).map_err(|faults| Diagnostics::new(file, text, faults, &[]))?;
    let facts = match reading {
        Reading::Lenient => return leniently(text, file, root, faults),
        Reading::Strict => None,
        Reading::For(image) => Some(EffectiveFacts::new(image)),
    };
    if !faults.is_empty() {
        return Err(Diagnostics::new(file, text, faults, &[]));
    }
    let found = Found::of(&root, &json_schema(), facts);
    let said = Diagnostics::new(file, text, found.faults, &found.secrets);
    match found.profile {
        Some(profile) if said.errors.is_empty() => Ok((profile, said)),
        _ => Err(said),
    }
}

/// What recovery needs of a tree, without whatever is wrong.
fn leniently(
    text: &str,
    file: &str,
    mut root: Node,
    mut said: Vec<Fault>,
) -> Result<(Profile, Diagnostics), Diagnostics> {
    root.cut(&NOT_OF_HOST.map(|it| vec![it.to_owned()]).into());
    let schema = json_schema();
    let mut secrets: Option<Vec<Range<usize>>> = None;
    // What is left can always be read once nothing but the version is.
    let mut is_bare = false;
    loop {
        let found = Found::of(&root, &schema, None);
        // The first reading saw all that is read of it.
        let secrets = secrets.get_or_insert(found.secrets);
        let is_error = |it: &Fault| it.severity == Severity::Error;
        let (errors, warnings): (Vec<_>, Vec<_>) = found.faults.into_iter().partition(is_error);
        said.extend(errors.iter().cloned());
        match found.profile {
            Some(profile) if errors.is_empty() => {
                said.extend(warnings);
                return Ok((profile, Diagnostics::new(file, text, said, secrets)));
            }
            _ if is_bare || !matches!(root.kind, Kind::Map(_)) => {
                return Err(Diagnostics::new(file, text, said, secrets));
            }
            _ => {}
        }
        let paths = errors.iter().map(|it| to_leave_out(&root, it)).collect();
        let paths = with_wider_interfaces(&root, paths);
        let mut progress = root.cut(&paths);
        progress |= root.complete();
        if !progress {
            // What is wrong is not written there: what would hold it has to go.
            progress = root.cut(&paths.iter().map(|it| root.deepest(it)).collect());
        }
        if !progress {
            root.kind = Kind::Map(Vec::new());
            root.complete();
            is_bare = true;
        }
    }
}

/// The path of what is left out for a fault: the value that it is about, or the mapping in which something is missing.
fn to_leave_out(root: &Node, fault: &Fault) -> Vec<String> {
    let mut path = fault.path.clone();
    path.extend(fault.unknown.clone());
    if let Some((_, [field, ..])) = in_interface(&path) {
        // Without one of its conditions an entry would be about interfaces that are not meant; and one that is not to ask
        // DHCP would do so.
        let says_no =
            matches!(&root.nearest(&path).kind, Kind::Scalar { text, .. } if text == "false");
        if field == "match" || (field == "dhcp" && says_no) {
            path.truncate(3);
        }
    }
    path
}

/// Which interface a path is about, by its place in the list, and what of it.
fn in_interface(path: &[String]) -> Option<(usize, &[String])> {
    match path {
        [network, interfaces, place, rest @ ..]
            if network == "network" && interfaces == "interfaces" =>
        {
            Some((place.parse().ok()?, rest))
        }
        _ => None,
    }
}

/// The paths, and after each interface that is left out those that are for a kind of interfaces: they would get what the
/// one that is left out was for.
fn with_wider_interfaces(root: &Node, mut paths: BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let left_out = paths.iter().filter_map(|path| match in_interface(path) {
        Some((place, [])) => Some(place),
        _ => None,
    });
    let first = left_out.min();
    let list = ["network", "interfaces"].map(str::to_owned);
    let Kind::List(interfaces) = &root.nearest(&list).kind else {
        return paths;
    };
    if let Some(first) = first {
        let wide = interfaces.iter().enumerate().skip(first.saturating_add(1));
        let wide = wide.filter(|(_, interface)| is_for_a_kind(interface));
        paths.extend(wide.map(|(place, _)| [&list[..], &[place.to_string()]].concat()));
    }
    paths
}

/// Whether an interface's conditions name neither it nor its address.
fn is_for_a_kind(interface: &Node) -> bool {
    let condition = |key| interface.child("match")?.child(key);
    let is_pattern = |name: &Node| match &name.kind {
        Kind::Scalar { text, .. } => text.contains(['*', '?', '[']),
        Kind::Map(_) | Kind::List(_) => true,
    };
    condition("mac").is_none() && condition("name").is_none_or(is_pattern)
}

impl Node {
    /// As much of a path as there is.
    fn deepest(&self, path: &[String]) -> Vec<String> {
        let mut node = self;
        let is_there = |part: &&String| match node.child(part) {
            Some(next) => {
                node = next;
                true
            }
            None => false,
        };
        path.iter().take_while(is_there).cloned().collect()
    }

    /// Adds what every profile has, where it is not there; whether it was not.
    fn complete(&mut self) -> bool {
        let Kind::Map(entries) = &mut self.kind else {
            return false;
        };
        let key = "version";
        let is_missing = !entries.iter().any(|it| it.key == key);
        if is_missing {
            let kind = Kind::Scalar {
                text: "1".to_owned(),
                plain: true,
            };
            entries.push(Entry {
                key: key.to_owned(),
                key_span: 0..0,
                value: Self { span: 0..0, kind },
            });
        }
        is_missing
    }
}

/// What one reading of a tree comes to.
struct Found {
    /// None if it cannot be one; there may be one that is refused all the same.
    profile: Option<Profile>,
    /// Not empty without a profile.
    faults: Vec<Fault>,
    secrets: Vec<Range<usize>>,
}

impl Found {
    fn of(root: &Node, schema: &Value, facts: Option<EffectiveFacts<'_>>) -> Self {
        let mut checker = Checker::new(schema);
        let value = checker.value(root, schema);
        let (mut faults, secrets) = (checker.faults, checker.secrets);
        if let Some(facts) = facts {
            foreign_distribution(root, facts, &mut faults);
        }
        let read = value
            .filter(|_| faults.is_empty())
            .map(serde_json::from_value::<Profile>);
        let profile = match read {
            Some(Ok(profile)) => {
                let mut problems = validate::problems(&profile);
                if let Some(facts) = facts {
                    problems.extend(validate::problems_with_facts(&profile, facts));
                }
                faults.extend(problems.into_iter().map(|it| it.placed(root)));
                Some(profile)
            }
            // Schema and types disagree: a mistake of ours, still a message and no panic.
            Some(Err(error)) => {
                let message = format!("this profile cannot be read: {error}");
                faults.push(Fault::new(0..0, message, None));
                None
            }
            None => {
                if faults.is_empty() {
                    faults.push(Fault::new(0..0, "this is not a profile", None));
                }
                None
            }
        };
        Self {
            profile,
            faults,
            secrets,
        }
    }
}

impl Problem {
    /// Where it stands in the file: at its value, or, of one that is not written there, at what would hold it.
    fn placed(self, root: &Node) -> Fault {
        let node = root.nearest(&self.path);
        let span = match node.kind {
            Kind::Scalar { .. } => node.span.clone(),
            Kind::List(_) | Kind::Map(_) => node.span.start..node.span.start,
        };
        Fault {
            severity: self.severity,
            span,
            path: self.path,
            unknown: None,
            message: self.message,
            help: self.help,
        }
    }
}

/// A distribution of which this version of Sternpost knows nothing is, above all, one that the image
/// does not have: say so, with both names.
fn foreign_distribution(root: &Node, facts: EffectiveFacts<'_>, faults: &mut [Fault]) {
    let path = ["kubernetes".to_owned(), "distribution".to_owned()];
    let Kind::Scalar { text, .. } = &root.nearest(&path).kind else {
        return;
    };
    for fault in faults.iter_mut().filter(|fault| fault.path == path) {
        let (message, help) = validate::not_in_image(
            "Kubernetes distribution",
            text,
            facts.kubernetes().map(|k| k.distribution.as_str()),
        );
        fault.message = message;
        fault.help = Some(help);
    }
}
