//! Profile to [`Rendered`]: the host's own part in the modules here, the rest by the distribution
//! and the VM runtime that the profile names.

mod health;
mod host;
mod network;
mod users;

use std::time::Duration;

use crate::distribution::{Context, Contribution};
use crate::schema::{OnDamage, validate};
use crate::{Action, File, ImageFacts, MachineFacts, Profile, Rendered, Step, When};

/// Why a valid profile cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The image does not have what the profile names. [`crate::parse_for`] says the same with the
    /// line.
    #[error("{message}; {help}")]
    NotInImage {
        /// Both names.
        message: String,
        /// What to do.
        help: String,
    },
    /// The machine id is not 32 hex digits.
    #[error("the machine id {0:?} is not 32 hexadecimal digits; the initrd writes /etc/machine-id")]
    MachineId(String),
    /// The host name that results is not one.
    #[error("the host name that results from `{0}` is not valid")]
    Hostname(String),
}

/// Renders a profile for one image on one machine. Pure: the same three values give the same result.
///
/// # Errors
/// If the image does not have what the profile names, or the machine has no proper id.
pub fn render(
    profile: &Profile,
    image: &ImageFacts,
    machine: &MachineFacts,
) -> Result<Rendered, RenderError> {
    if let Some(problem) = validate::problems_with_image(profile, image)
        .into_iter()
        .next()
    {
        let help = problem.help.unwrap_or_default();
        return Err(RenderError::NotInImage {
            message: problem.message,
            help,
        });
    }
    let id = &machine.machine_id;
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(RenderError::MachineId(id.clone()));
    }
    let hostname = profile
        .hostname
        .expand(&id.to_ascii_lowercase())
        .ok_or_else(|| RenderError::Hostname(profile.hostname.to_string()))?;

    let mut all = Contribution::default();
    network::render(&profile.network, &mut all.files);
    host::render(profile, &hostname, &mut all.files);
    let mut early = Vec::new();
    users::render(&profile.users, &mut all.files, &mut early);

    let context = Context {
        profile,
        image,
        machine,
        hostname: &hostname,
    };
    if let Some(kubernetes) = &profile.kubernetes {
        all.merge(kubernetes.distribution().render(&context));
    }
    all.merge(profile.vm.runtime().render(&context));

    let health = health::plan(&profile.health, all.units, all.checks);
    Ok(Rendered {
        hostname,
        files: all.files,
        early,
        bring_up: all.bring_up,
        health,
        erases_damaged_state: profile.state.on_damage == OnDamage::Erase,
        recovery_installs: profile.recovery.install.as_ref().map(ToString::to_string),
    })
}

impl Contribution {
    fn merge(&mut self, other: Self) {
        self.files.extend(other.files);
        self.bring_up.extend(other.bring_up);
        self.units.extend(other.units);
        self.checks.extend(other.checks);
    }
}

/// The first line of whatever is rendered in a format with `#` comments.
pub(crate) const HEADER: &str =
    "# Rendered from the profile at every boot; changes here are lost.\n";

/// A file that anybody may read.
pub(crate) fn file(path: impl Into<String>, content: impl Into<String>, when: When) -> File {
    File {
        path: path.into(),
        mode: 0o644,
        content: content.into().into_bytes(),
        when,
    }
}

impl Step {
    /// A step that must succeed, once tried, within a minute.
    pub(crate) fn new(name: impl Into<String>, command: &[&str]) -> Self {
        Self {
            name: name.into(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            conditions: Vec::new(),
            stamp: None,
            recover: None,
            timeout: Duration::from_secs(60),
            attempts: 1,
            pause: Duration::from_secs(2),
            required: true,
        }
    }

    pub(crate) fn within(mut self, seconds: u64) -> Self {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    pub(crate) fn tries(mut self, attempts: u32, pause_seconds: u64) -> Self {
        self.attempts = attempts;
        self.pause = Duration::from_secs(pause_seconds);
        self
    }

    pub(crate) fn only_if(mut self, conditions: &[crate::Condition]) -> Self {
        self.conditions.extend_from_slice(conditions);
        self
    }

    pub(crate) fn leaves(mut self, path: &str, content: &str) -> Self {
        self.stamp = Some(crate::Stamp {
            path: path.into(),
            content: content.into(),
        });
        self
    }

    pub(crate) fn recover(mut self, step: Self) -> Self {
        self.recover = Some(Box::new(step));
        self
    }

    pub(crate) fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}

impl From<Step> for Action {
    fn from(step: Step) -> Self {
        Self::Run(step)
    }
}
