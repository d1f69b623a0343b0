//! Text to [`Profile`], or to everything that is wrong with it.

use super::check::Checker;
use super::tree::{self, Kind, Node};
use super::{Profile, json_schema, validate};
use crate::diagnostics::{Fault, Problem};
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

/// The profile and what is hardly meant in it, or everything that is wrong with it.
pub(crate) fn read(
    text: &str,
    file: &str,
    facts: Option<EffectiveFacts<'_>>,
) -> Result<(Profile, Diagnostics), Diagnostics> {
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
    let profile = match value.filter(|_| faults.is_empty()) {
        Some(value) => match serde_json::from_value::<Profile>(value) {
            Ok(profile) => profile,
            // Schema and types disagree: a mistake of ours, still a message and no panic.
            Err(error) => {
                let message = format!("this profile cannot be read: {error}");
                let fault = Fault::new(0..0, message, None);
                return Err(Diagnostics::new(file, text, vec![fault], &secrets));
            }
        },
        None => {
            if faults.is_empty() {
                faults.push(Fault::new(0..0, "this is not a profile", None));
            }
            return Err(Diagnostics::new(file, text, faults, &secrets));
        }
    };
    let mut problems = validate::problems(&profile);
    if let Some(facts) = facts {
        problems.extend(validate::problems_with_facts(&profile, facts));
    }
    let faults = problems.into_iter().map(|it| it.placed(&root)).collect();
    let said = Diagnostics::new(file, text, faults, &secrets);
    if said.errors.is_empty() {
        Ok((profile, said))
    } else {
        Err(said)
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
