//! The profile as types. Field names, types, limits and descriptions of the published JSON Schema
//! come from here, and so does what [`crate::parse`] refuses:
//!
//! | step | module |
//! | --- | --- |
//! | YAML to a tree that knows lines and columns | `tree` |
//! | fields and types, by the schema: "has no field", "cannot be" | `check` |
//! | rules over several fields of these types | `validate`; `interfaces`, `addresses`, `servers`, `names`; those of a distribution in its folder's `check` |
//! | all of it, with every error at once | `read` |

mod addresses;
mod check;
mod interfaces;
pub mod kubernetes;
mod names;
mod read;
mod servers;
mod tree;
pub(crate) mod validate;

pub use read::Reading;
pub(crate) use read::{read, without_secrets};

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::scalar::{
    BundleUrl, Certificates, Cidr, Deadline, HostnameTemplate, InterfaceGlob, MacAddress,
    PasswordHash, ProxyExemption, ProxyUrl, ServerName, SshKey, UnitName, UserName,
};

pub use kubernetes::Kubernetes;

use crate::vm::VmRuntime;

/// What a machine is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of the profile format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Host name. `{machine-id}` or `{machine-id:N}` (1 to 32) stands for the first N digits of the
    /// machine id.
    #[serde(default)]
    pub hostname: HostnameTemplate,
    /// Network; without it every Ethernet interface uses DHCP.
    #[serde(default)]
    pub network: Network,
    /// Clock.
    #[serde(default)]
    pub time: Time,
    /// People who may log in.
    #[serde(default)]
    pub users: Vec<User>,
    /// Kubernetes; without it the machine runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// VM runtime.
    #[serde(default)]
    pub vm: Vm,
    /// The `state` filesystem.
    #[serde(default)]
    pub state: State,
    /// What recovery does by itself.
    #[serde(default)]
    pub recovery: Recovery,
    /// When this machine counts as well.
    #[serde(default)]
    pub health: Health,
}

impl Profile {
    /// What of it recovery needs: name, network, clock and users, which make a machine reachable, and what it does by
    /// itself.
    #[must_use]
    pub fn of_host(self) -> Self {
        Self {
            kubernetes: None,
            vm: Vm::default(),
            health: Health::default(),
            ..self
        }
    }
}

/// Network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Interfaces, the first that matches wins. Without any: DHCP on every Ethernet interface.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub interfaces: Vec<Interface>,
    /// DNS servers for the whole machine, used beside those that DHCP names.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    #[serde(default)]
    pub search: Vec<ServerName>,
    /// The proxy by which servers are reached, where there is no other way: for `bootctl`, recovery, the container
    /// runtime and the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Certificates of authorities of this site, in PEM: trusted like those that the image trusts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<Certificates>,
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Its address, `http://proxy.example.com:3128`; with a name and a password, if it wants them:
    /// `http://name:password@proxy.example.com:3128`. It is asked for connections (CONNECT), to servers of http:// too.
    pub url: ProxyUrl,
    /// What is reached without it. This machine, its pods, services and node address always are.
    #[serde(default)]
    pub except: Vec<ProxyExemption>,
}

impl Network {
    /// Whether everything that it needs is said: nothing comes by DHCP.
    pub(crate) fn is_fixed(&self) -> bool {
        !self.interfaces.is_empty() && !self.interfaces.iter().any(Interface::uses_dhcp)
    }
}

/// One interface, or all that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Which interfaces this is about. All fields that are given must fit.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Whether addresses come from DHCP (v4 and v6). Default: if `addresses` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Static addresses with prefix length: `192.0.2.10/24`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub addresses: Vec<Cidr>,
    /// Default routes, at most one for IPv4 and one for IPv6.
    #[serde(default)]
    #[schemars(length(max = 2))]
    pub gateways: Vec<IpAddr>,
    /// Whether a gateway is reached on this interface though it is in none of its networks, as some providers have it.
    /// Where all addresses of its family are single ones (/32, /128), it is reached so without saying.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub gateway_on_link: bool,
    /// DNS servers reached by this interface.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub dns: Vec<IpAddr>,
    /// Largest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 9216))]
    pub mtu: Option<u16>,
    /// Whether the machine counts as online only with this interface.
    #[serde(default)]
    pub required: bool,
}

impl Interface {
    /// Whether addresses come by DHCP, said or not.
    pub(crate) fn uses_dhcp(&self) -> bool {
        self.dhcp.unwrap_or(self.addresses.is_empty())
    }

    /// Whether `gateway` is to be looked for on the link, because no network of this interface holds it.
    pub(crate) fn reaches_on_link(&self, gateway: IpAddr) -> bool {
        let mut of_family = self
            .addresses
            .iter()
            .filter(|it| it.address().is_ipv4() == gateway.is_ipv4())
            .peekable();
        let single = if gateway.is_ipv4() { 32 } else { 128 };
        let all_single = of_family.peek().is_some() && of_family.all(|it| it.prefix() == single);
        let is_outside = !self.addresses.iter().any(|it| it.contains(gateway));
        is_outside && (self.gateway_on_link || all_single)
    }
}

/// Which interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Name, `*` and `?` allowed: `enp1s0`, `en*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<InterfaceGlob>,
    /// Hardware address: `52:54:00:12:34:56`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Kernel driver: `igb`, `virtio_net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<InterfaceGlob>,
}

/// Clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// NTP servers, names or addresses. Without any: those that DHCP names, then the image's.
    #[schemars(length(max = 32))]
    pub servers: Vec<ServerName>,
    /// How long nothing is brought up while the time cannot be right: the hardware clock is dead or years ahead, no
    /// time was saved, and neither a time server nor somebody has said it yet.
    pub wait: Deadline,
    /// What is done when it is not known by then.
    pub if_unknown: IfUnknown,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            wait: Deadline::from_secs(300),
            if_unknown: IfUnknown::default(),
        }
    }
}

/// What is done without the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IfUnknown {
    /// The bring-up begins with the latest time that is known: when the image was built, or later.
    #[default]
    Start,
    /// Nothing is brought up before somebody says the time, a server or a person.
    Wait,
}

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: UserName,
    /// Public keys for SSH, as in authorized_keys. Passwords are never accepted over the network.
    #[serde(default)]
    pub ssh_keys: Vec<SshKey>,
    /// Password for the console, hashed: what `mkpasswd -m yescrypt` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// Whether sudo lets this user do everything.
    #[serde(default)]
    pub admin: bool,
}

/// VM runtime. The one list of VM runtimes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vm {
    /// None.
    #[default]
    None,
}

impl Vm {
    /// The runtime that the profile names.
    #[must_use]
    pub fn runtime(&self) -> &'static dyn VmRuntime {
        match self {
            Self::None => &crate::vm::NoVms,
        }
    }
}

/// The `state` filesystem: all that the machine keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What is done when it is damaged beyond what can be repaired without loss. The image's own
    /// profile decides: the machine's is on `state` itself.
    #[serde(default)]
    pub on_damage: OnDamage,
}

/// What is done with a damaged `state`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// It is left as it is: the machine is up and can be reached, without Kubernetes.
    #[default]
    Keep,
    /// It is made anew, empty, and the machine starts as on its first day.
    Erase,
}

/// The recovery system, which comes up where no slot starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// The bundle that it installs by itself where nobody is at the machine and no slot is whole, verified
    /// as every other.
    /// Without it, recovery waits for somebody, and tries the slots again every 15 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<BundleUrl>,
}

/// When this machine counts as well. A new image is marked good when all of this holds, and given
/// up when it does not hold before the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// How long the machine may take to be well after each start: `10m`.
    pub deadline: Deadline,
    /// How long everything must hold without a break.
    pub settle: Deadline,
    /// Units that must be active.
    pub units: Vec<UnitName>,
    /// Whether any failed unit makes the machine unhealthy.
    pub no_failed_units: bool,
    /// Units that may fail nevertheless. Nothing says so if there is no such unit.
    pub ignore_units: Vec<UnitName>,
    /// Whether the Kubernetes node must be Ready. Default: if the profile has Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_ready: Option<bool>,
    /// Kubernetes workloads that must be up.
    pub workloads: Vec<Workload>,
    /// Whether the machine is rebooted when an image that was good before is not well at the end of
    /// a start's deadline, at most every six hours. Off: it stays up and says so.
    pub reboot_when_good: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            deadline: Deadline::from_secs(600),
            settle: Deadline::from_secs(5),
            units: Vec::new(),
            no_failed_units: true,
            ignore_units: Vec::new(),
            node_ready: None,
            workloads: Vec::new(),
            reboot_when_good: false,
        }
    }
}

/// A Kubernetes workload that must be up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: ServerName,
    /// Its namespace.
    #[serde(default = "default_namespace")]
    pub namespace: ServerName,
}

fn default_namespace() -> ServerName {
    ServerName::literal("default")
}

/// Kinds of workload.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A Deployment whose replicas are all up to date and available.
    Deployment,
    /// A DaemonSet with a ready pod on every node that it wants.
    DaemonSet,
    /// A StatefulSet whose replicas are all ready.
    StatefulSet,
}

/// The JSON Schema of [`Profile`].
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Profile).to_value()
}
