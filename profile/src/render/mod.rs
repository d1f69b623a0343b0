//! Profile to [`Rendered`]: the host's own part in the modules here, the rest by the distribution
//! and the VM runtime that the profile names.

mod health;
mod host;
mod network;
mod users;
mod web;

pub(crate) use web::for_unit as proxy_for_unit;
pub use web::{PROXY_SETTINGS, SITE_AUTHORITIES};

use std::time::Duration;

use serde::Serialize;

use crate::contribution::Contribution;
use crate::kubernetes::Context;
use crate::schema::{IfUnknown, OnDamage, validate};
use crate::{Check, EffectiveFacts, File, ImageFacts, Lane, MachineFacts, Profile, Step};

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
    let facts = EffectiveFacts::new(image);
    if let Some(problem) = validate::problems_with_facts(profile, facts)
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
    web::render(profile, &hostname, &mut all.files);
    let mut early = Vec::new();
    users::render(&profile.users, &mut all.files, &mut early);

    let context = Context {
        profile,
        facts,
        machine,
        hostname: &hostname,
    };
    if let Some(kubernetes) = &profile.kubernetes {
        let cluster = kubernetes.cluster();
        all.merge(kubernetes.distribution().render(&cluster, &context));
    }
    all.merge(profile.vm.runtime().render(&context));

    let health = health::plan(&profile.health, all.units, all.checks);
    Ok(Rendered {
        hostname,
        files: all.files,
        early,
        lanes: all.lanes,
        health,
        waits_for_time: match profile.time.if_unknown {
            IfUnknown::Start => Some(profile.time.wait.duration()),
            IfUnknown::Wait => None,
        },
        erases_damaged_state: profile.state.on_damage == OnDamage::Erase,
        recovery_installs: profile.recovery.install.as_ref().map(ToString::to_string),
    })
}

/// The whole of what a profile asks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// The host name, any `{machine-id}` filled in. A valid DNS name of at most 63 bytes.
    pub hostname: String,
    /// Files to write, in no particular order; no path occurs twice. Directories that are missing
    /// are made root:root 0755.
    pub files: Vec<File>,
    /// Commands of the early phase, in order, after its files are written and before anything
    /// that depends on users, keys or the network's configuration.
    pub early: Vec<Step>,
    /// What `bootctl serve` does to bring the machine's purpose up. Names in `after` are those of
    /// lanes earlier in the list.
    pub lanes: Vec<Lane>,
    /// How it is told whether this machine is well.
    pub health: HealthPlan,
    /// How long nothing is brought up while the time cannot be right; without it, for ever.
    pub waits_for_time: Option<Duration>,
    /// Whether a `state` that is damaged beyond repair may be made anew.
    pub erases_damaged_state: bool,
    /// The address of the bundle that recovery installs by itself.
    pub recovery_installs: Option<String>,
}

/// How it is told whether a machine is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthPlan {
    /// How long after the start of `bootctl serve` the machine may take to be well.
    pub deadline: Duration,
    /// Everything must hold for this long without a break before the verdict is "healthy".
    pub settle: Duration,
    /// Whether any failed unit makes the machine unhealthy.
    pub units_failed: bool,
    /// Failed units that are nevertheless let pass.
    pub units_ignored: Vec<String>,
    /// Units that must be active.
    pub units: Vec<String>,
    /// What else must hold; what comes later usually needs what comes earlier.
    pub checks: Vec<Check>,
    /// Whether the gate may reboot a slot that is already good.
    pub gate_reboots_good: bool,
}
