//! Text to [`Profile`], or to everything that is wrong with it.

use super::check::Checker;
use super::tree::{self, Kind, Node};
use super::{Profile, json_schema, validate};
use crate::diagnostics::Finding;
use crate::{Diagnostics, ImageFacts};

pub(crate) fn read(
    text: &str,
    file: &str,
    image: Option<&ImageFacts>,
) -> Result<Profile, Diagnostics> {
    let root = match tree::read(text) {
        Ok(root) => root,
        Err(faults) => {
            let findings = faults
                .into_iter()
                .map(|f| Finding {
                    span: f.span,
                    path: Vec::new(),
                    message: f.message,
                    help: f.help,
                })
                .collect();
            return Err(Diagnostics::new(file, text, findings, &[]));
        }
    };
    let schema = json_schema();
    let mut checker = Checker::new(&schema);
    let value = checker.value(&root, &schema);
    let (mut findings, secrets) = (checker.findings, checker.secrets);
    if let Some(image) = image {
        foreign_distribution(&root, image, &mut findings);
    }
    let profile = match value {
        Some(value) if findings.is_empty() => match serde_json::from_value::<Profile>(value) {
            Ok(profile) => Some(profile),
            // Schema and types disagree: a mistake of ours, still a message and no panic.
            Err(error) => {
                findings.push(Finding {
                    span: 0..0,
                    path: Vec::new(),
                    message: format!("this profile cannot be read: {error}"),
                    help: None,
                });
                None
            }
        },
        _ => None,
    };
    if let Some(profile) = profile {
        let mut problems = validate::problems(&profile);
        if let Some(image) = image {
            problems.extend(validate::problems_with_image(&profile, image));
        }
        if problems.is_empty() {
            return Ok(profile);
        }
        findings.extend(problems.into_iter().map(|problem| {
            let node = root.nearest(&problem.path);
            let span = match node.kind {
                Kind::Scalar { .. } => node.span.clone(),
                Kind::List(_) | Kind::Map(_) => node.span.start..node.span.start,
            };
            Finding {
                span,
                path: problem.path,
                message: problem.message,
                help: problem.help,
            }
        }));
    }
    Err(Diagnostics::new(file, text, findings, &secrets))
}

/// A distribution of which this version of Sternpost knows nothing is, above all, one that the image
/// does not have: say so, with both names.
fn foreign_distribution(root: &Node, image: &ImageFacts, findings: &mut [Finding]) {
    let path = ["kubernetes".to_owned(), "distribution".to_owned()];
    let Kind::Scalar { text, .. } = &root.nearest(&path).kind else {
        return;
    };
    for finding in findings.iter_mut().filter(|finding| finding.path == path) {
        let (message, help) = validate::not_in_image(
            "Kubernetes distribution",
            text,
            image.kubernetes.as_ref().map(|k| k.distribution.as_str()),
        );
        finding.message = message;
        finding.help = Some(help);
    }
}
