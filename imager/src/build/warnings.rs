//! What is hardly meant in what an image is made of: said before anything is built, refused where that is asked for.

use anyhow::{Result, bail};
use profile::Diagnostics;

use crate::recipe::Recipe;

/// Says it line by line, and how much of it there is.
///
/// # Errors
/// There is something, and it is to be refused.
pub(crate) fn say(
    recipes: &[&Recipe],
    profile: Option<&Diagnostics>,
    refuse: bool,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let mut count = 0;
    for warning in recipes.iter().flat_map(|it| &it.warnings) {
        line(warning);
        count += 1;
    }
    if let Some(said) = profile.filter(|it| !it.warnings.is_empty()) {
        line(said.to_text(false).trim_end());
        count += said.warnings.len();
    }
    let warnings = match count {
        0 => return Ok(()),
        1 => "one warning".to_owned(),
        n => format!("{n} warnings"),
    };
    if refuse {
        bail!("{warnings}, which --deny-warnings refuses");
    }
    line(&warnings);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_counted_and_refused_where_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.toml");
        let text = "product = \"box\"\nheadroom = 1\n[kernel]\nx86_64 = \"linux\"\n[packages]\ncommon = [\"bash\"]\n";
        std::fs::write(&path, text).unwrap();
        let recipe = Recipe::load(&path).unwrap();
        let text = "version: 1\nnetwork: {dns: [9.9.9.9, 9.9.9.9]}\n";
        let (_, said) = profile::check(text, "p.yaml", profile::Reading::Strict).unwrap();
        let mut lines = Vec::new();
        let all = |refuse, lines: &mut Vec<String>| {
            say(&[&recipe], Some(&said), refuse, |it| {
                lines.push(it.to_owned())
            })
        };
        all(false, &mut lines).unwrap();
        assert!(lines[0].contains("box.toml:2:12: warning: "), "{lines:?}");
        assert!(lines[1].contains("p.yaml:2:26"), "{lines:?}");
        assert_eq!(lines[2], "2 warnings");
        let refused = all(true, &mut lines).unwrap_err().to_string();
        assert_eq!(refused, "2 warnings, which --deny-warnings refuses");
        say(&[], None, true, |it| panic!("{it}")).unwrap();
    }
}
