//! Text to [`Profile`], or to everything that is wrong with it.

use super::check::Checker;
use super::tree::{self, Kind, Node};
use super::{Profile, json_schema, validate};
use crate::diagnostics::Fault;
use crate::{Diagnostics, EffectiveFacts};

/// The text of a profile with its secrets overwritten, byte for byte. Of a text that is no profile at all nothing is
/// given.
pub(crate) fn without_secrets(text: &str) -> Option<String> {
    let root = tree::read(text).ok()?;
    let schema = json_schema();
    let mut checker = Checker::new(&schema);
    checker.value(&root, &schema);
    Some(crate::diagnostics::without_secrets(text, &checker.secrets))
}

pub(crate) fn read(
    text: &str,
    file: &str,
    facts: Option<EffectiveFacts<'_>>,
) -> Result<Profile, Diagnostics> {
    let root = match tree::read(text) {
        Ok(root) => root,
        Err(faults) => return Err(Diagnostics::new(file, text, faults, &[])),
    };
    let schema = json_schema();
    let mut checker = Checker::new(&schema);
    let value = checker.value(&root, &schema);
    let (mut faults, secrets) = (checker.faults, checker.secrets);
    if let Some(facts) = facts {
        foreign_distribution(&root, facts, &mut faults);
    }
    let profile = match value {
        Some(value) if faults.is_empty() => match serde_json::from_value::<Profile>(value) {
            Ok(profile) => Some(profile),
            // Schema and types disagree: a mistake of ours, still a message and no panic.
            Err(error) => {
                let message = format!("this profile cannot be read: {error}");
                faults.push(Fault::new(0..0, message, None));
                None
            }
        },
        _ => None,
    };
    if let Some(profile) = profile {
        let mut problems = validate::problems(&profile);
        if let Some(facts) = facts {
            problems.extend(validate::problems_with_facts(&profile, facts));
        }
        if problems.is_empty() {
            return Ok(profile);
        }
        faults.extend(problems.into_iter().map(|problem| {
            let node = root.nearest(&problem.path);
            let span = match node.kind {
                Kind::Scalar { .. } => node.span.clone(),
                Kind::List(_) | Kind::Map(_) => node.span.start..node.span.start,
            };
            Fault {
                span,
                path: problem.path,
                message: problem.message,
                help: problem.help,
            }
        }));
    }
    Err(Diagnostics::new(file, text, faults, &secrets))
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
