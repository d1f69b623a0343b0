//! `profile check`, `show`, `apply`.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use profile::Reading;
use serde_json::json;

use crate::failure::{Code, Failure, Result};
use crate::machine::facts;
use crate::os::paths::Paths;
use crate::output::Outcome;
use crate::profile::apply;
use crate::profile::choose;

/// The commands about profiles.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Say everything that is wrong with a profile, and what is hardly meant, with line and column
    ///
    /// What can never work is an error: such a profile is not used (9). What could be meant is a warning: it is used.
    #[command(after_help = "\
Examples:
  bootctl profile check                  the one that this machine uses
  bootctl profile check profile.yaml
  bootctl profile check --deny-warnings profile.yaml && publish profile.yaml
  render-site 17 | bootctl profile check -")]
    Check {
        /// The profile, - for standard input; without it, the one that this machine uses
        file: Option<PathBuf>,
        /// End with 9 for a warning, too
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Show the profile that this machine uses and what it turns into (secrets left out)
    #[command(after_help = "\
Examples:
  bootctl profile show
  bootctl profile show --json | jq .rendered.health")]
    Show,
    /// Write what has to be there early in the boot (sternpost-render.service)
    Apply,
}

/// `bootctl profile …`.
pub fn profile(paths: &Paths, command: &Profile, real: bool) -> Result<Outcome> {
    match command {
        Profile::Check {
            file,
            deny_warnings,
        } => {
            let (name, text) = match file {
                Some(file) => read(file)?,
                None => own(paths)?,
            };
            check(paths, &name, &text, *deny_warnings)
        }
        Profile::Show => show(paths),
        Profile::Apply => {
            let applied = apply::apply(paths, real)?;
            let text = match &applied.problem {
                None => format!("{} is in force", applied.profile.display()),
                Some(problem) => problem.clone(),
            };
            Ok(Outcome::new(text, json!(applied)))
        }
    }
}

/// The profile in a file, or on standard input, and its name.
fn read(file: &Path) -> Result<(String, String)> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let text = if is_stdin {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|e| {
        Failure::by(Code::Profile, e)
            .doing(format!("reading the profile {name}"))
            .next("name a profile that can be read, or - for standard input")
    })?;
    Ok((name, text))
}

/// The profile of this machine, and where it lies.
fn own(paths: &Paths) -> Result<(String, String)> {
    is_ours(paths)?;
    let path = choose::location(paths);
    match read(&path) {
        // Recovery has none.
        Err(_)
            if path
                .symlink_metadata()
                .is_err_and(|e| e.kind() == ErrorKind::NotFound) =>
        {
            let name = "what stands in for a profile in this image".to_owned();
            Ok((name, choose::NOTHING_SAID.to_owned()))
        }
        read => read,
    }
}

/// Only an image of ours has a profile of its own, and something that it turns into.
fn is_ours(paths: &Paths) -> Result<()> {
    facts::image_facts(paths).map(drop).map_err(|e| {
        let failure = Failure::new(Code::NotSternpost, e.to_string());
        failure
            .doing("looking for the profile of this machine")
            .next("run it on an appliance; elsewhere name a profile: `bootctl profile check FILE`")
    })
}

fn check(paths: &Paths, name: &str, text: &str, deny_warnings: bool) -> Result<Outcome> {
    // Without an image (on a build host) what depends on one is not checked.
    let image = facts::image_facts(paths).ok();
    let reading = image.as_ref().map_or(Reading::Strict, Reading::For);
    let (valid, said) = match profile::check(text, name, reading) {
        Ok((_, said)) => (true, said),
        Err(said) => (false, said),
    };
    let colour = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut shown = said.to_text(colour);
    if valid {
        let _ = write!(shown, "{name} is valid");
    }
    let json = json!({
        "file": name, "valid": valid, "errors": said.errors, "warnings": said.warnings,
    });
    let mut outcome = Outcome::new(shown.trim_end().to_owned(), json);
    let refused = !valid || (deny_warnings && !said.warnings.is_empty());
    outcome.code = refused.then_some(Code::Profile);
    Ok(outcome)
}

fn show(paths: &Paths) -> Result<Outcome> {
    is_ours(paths)?;
    let chosen = choose::in_force(paths)?;
    let rendered = &chosen.rendered;
    let mut out = format!("# {}\n", chosen.path.display());
    if let Some(problem) = &chosen.problem {
        let _ = writeln!(out, "# {problem}");
    }
    // One that is in force is YAML.
    let shown = profile::without_secrets(&chosen.text).unwrap_or_default();
    out.push_str(shown.trim_end());
    let _ = write!(
        out,
        "\n\n# turns into\nhost name: {}\nfiles:\n",
        rendered.hostname
    );
    for file in &rendered.files {
        let _ = writeln!(out, "  {:04o} {}", file.mode, file.path);
    }
    for lane in &rendered.lanes {
        let _ = write!(out, "lane {}", lane.name);
        if !lane.after.is_empty() {
            let _ = write!(out, ", after {}", lane.after.join(", "));
        }
        out.push_str(":\n");
        for step in &lane.steps {
            let _ = writeln!(out, "  {}", step.name);
        }
    }
    let health = &rendered.health;
    let _ = writeln!(out, "health, within {} s:", health.deadline.as_secs());
    if health.units_failed {
        out.push_str("  no unit has failed\n");
    }
    for unit in &health.units {
        let _ = writeln!(out, "  unit {unit} is active");
    }
    for check in &health.checks {
        let _ = writeln!(out, "  {}", check.name);
    }
    let json = json!({
        "file": chosen.path,
        "problem": chosen.problem,
        "rendered": rendered,
    });
    Ok(Outcome::new(out.trim_end().to_owned(), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_shown_counted_and_let_pass_unless_they_are_denied() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let answer = |text, deny_warnings| check(&paths, "p.yaml", text, deny_warnings).unwrap();
        let twice = "version: 1\nnetwork: {dns: [9.9.9.9, 9.9.9.9]}\n";
        let passed = answer(twice, false);
        assert_eq!(passed.code, None);
        for part in [
            "warning: the DNS server 9.9.9.9 is named twice",
            "p.yaml:2:26",
        ] {
            assert!(passed.text.contains(part), "{}", passed.text);
        }
        let end = "p.yaml: one warning; this profile can be used\np.yaml is valid";
        assert!(passed.text.ends_with(end), "{}", passed.text);
        assert_eq!(passed.json["valid"], true);
        assert_eq!(passed.json["warnings"][0]["line"], 2);
        assert_eq!(answer(twice, true).code, Some(Code::Profile));
        assert_eq!(answer("version: 1\n", true).code, None);
    }
}
