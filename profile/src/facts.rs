//! What the renderer has to know of the image and of the machine.

use serde::{Deserialize, Serialize};

/// `/usr/lib/sternpost/image.json`: what the image says of itself. Fields that an older reader does
/// not know are ignored, because images and readers are of different years.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Product name, as in the manifest.
    pub product: String,
    /// Version of the image.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// Security version (rollback index).
    pub security_version: u64,
    /// Epoch of what is on `state`.
    pub state_epoch: u64,
    /// Build time, Unix seconds.
    pub build_time: u64,
    /// The Kubernetes distribution in the image, if there is one.
    #[serde(default)]
    pub kubernetes: Option<KubernetesFacts>,
    /// The VM runtimes in the image, `none` among them.
    #[serde(default)]
    pub vm: Vec<String>,
    /// Version of the kernel.
    #[serde(default)]
    pub kernel: String,
}

/// What a profile finds on a machine. That is what the image brings; whoever renders or validates asks here all the same,
/// so that there is one place for whatever else comes to a machine.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveFacts<'a> {
    image: &'a ImageFacts,
}

impl<'a> EffectiveFacts<'a> {
    /// Those of a machine that runs this image.
    #[must_use]
    pub fn new(image: &'a ImageFacts) -> Self {
        Self { image }
    }

    /// `x86_64` or `aarch64`.
    #[must_use]
    pub fn architecture(self) -> &'a str {
        &self.image.architecture
    }

    /// The Kubernetes distribution, if there is one.
    #[must_use]
    pub fn kubernetes(self) -> Option<&'a KubernetesFacts> {
        self.image.kubernetes.as_ref()
    }

    /// The VM runtimes, `none` among them.
    #[must_use]
    pub fn vm(self) -> &'a [String] {
        &self.image.vm
    }
}

/// Which Kubernetes an image contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesFacts {
    /// Name of the distribution, as profiles give it: `kubeadm`.
    pub distribution: String,
    /// Its version, with or without a leading `v`.
    pub version: String,
}

/// What is known of the machine when it boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// `/etc/machine-id`: 32 hex digits.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`. The health checks compare it with what the kubelet
    /// reported, so that a `Ready` left over from the boot before does not count.
    pub boot_id: String,
}
