//! Whether this host lets `imager` have namespaces, in which every program of the tools tree runs; and
//! if not, what to allow. Of the reasons the kernel gives one number.

use std::io;
use std::path::Path;

use anyhow::{Result, bail};

use super::sandbox;

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    root: bool,
    /// CAP_SYS_ADMIN is effective.
    may_administer: bool,
    /// A seccomp filter is on this process.
    filtered: bool,
    in_container: bool,
    /// kernel.unprivileged_userns_clone, of Debian's kernels.
    for_anybody: Option<u64>,
    /// user.max_user_namespaces.
    most: Option<u64>,
    /// kernel.apparmor_restrict_unprivileged_userns, of Ubuntu's kernels.
    only_by_profile: Option<u64>,
}

/// Tries it.
///
/// # Errors
/// It is refused; the error says what to allow.
pub(super) fn ensure() -> Result<()> {
    match sandbox::probe() {
        Err(error) if is_refusal(&error) => bail!("{}", explanation(&error, &Host::here())),
        // Anything else is said where a tool is started.
        _ => Ok(()),
    }
}

/// unshare(2), mount(2): not allowed, too many, or not known to the kernel.
fn is_refusal(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let refusals = [
        Errno::EPERM,
        Errno::EACCES,
        Errno::ENOSPC,
        Errno::EUSERS,
        Errno::EINVAL,
        Errno::ENOSYS,
    ];
    let number = error.raw_os_error();
    refusals
        .iter()
        .any(|refusal| number == Some(*refusal as i32))
}

impl Host {
    fn here() -> Self {
        let setting = |path: &str| -> Option<u64> {
            let text = std::fs::read_to_string(Path::new("/proc/sys").join(path));
            text.ok()?.trim().parse().ok()
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let capabilities =
            field("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        let marks = ["/.dockerenv", "/run/.containerenv"];
        let variables = ["container", "KUBERNETES_SERVICE_HOST"];
        Self {
            root: nix::unistd::geteuid().is_root(),
            // linux/capability.h
            may_administer: capabilities.is_some_and(|bits| bits & (1 << 21) != 0),
            filtered: field("Seccomp:").is_some_and(|mode| mode.trim() == "2"),
            in_container: marks.iter().any(|mark| Path::new(mark).exists())
                || variables
                    .iter()
                    .any(|name| std::env::var_os(name).is_some()),
            for_anybody: setting("kernel/unprivileged_userns_clone"),
            most: setting("user/max_user_namespaces"),
            only_by_profile: setting("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn explanation(error: &io::Error, host: &Host) -> String {
    let mut steps = Vec::new();
    if host.root {
        if !host.may_administer {
            steps.push(
                "root has no CAP_SYS_ADMIN here: give the container `--cap-add SYS_ADMIN`, or run imager as another user",
            );
        }
    } else {
        if host.for_anybody == Some(0) {
            steps.push(
                "user namespaces are for root alone: sysctl -w kernel.unprivileged_userns_clone=1",
            );
        }
        if host.most == Some(0) {
            steps
                .push("user namespaces are switched off: sysctl -w user.max_user_namespaces=10000");
        }
        if host.only_by_profile.is_some_and(|value| value != 0) {
            steps.push(
                "AppArmor keeps them from programs that have no profile: sysctl -w \
                 kernel.apparmor_restrict_unprivileged_userns=0, or a profile for imager that says `userns,`",
            );
        }
    }
    if host.filtered {
        steps.push(
            "a seccomp filter is on this process: start the container with `--security-opt seccomp=unconfined`, \
             in Kubernetes with `seccompProfile: {type: Unconfined}`, or with a filter that lets unshare, mount \
             and chroot through",
        );
    }
    if host.in_container {
        steps.push(
            "a container's AppArmor profile forbids mounts: start it with `--security-opt apparmor=unconfined`",
        );
    }
    if steps.is_empty() {
        steps.push(
            "no setting of this kernel says why; a security module's log may (dmesg, auditd)",
        );
    }
    format!(
        "this process may not have namespaces of its own (unshare: {error}), in which every program that makes \
         an image runs. To allow it:\n  {}",
        steps.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &Host) -> String {
        explanation(&io::Error::from_raw_os_error(1), host)
    }

    #[test]
    fn what_to_allow_is_what_this_host_forbids() {
        let switched_off = Host {
            for_anybody: Some(0),
            most: Some(0),
            only_by_profile: Some(1),
            ..Host::default()
        };
        for part in [
            "unprivileged_userns_clone=1",
            "max_user_namespaces",
            "userns,",
            "os error 1",
        ] {
            assert!(said(&switched_off).contains(part), "{part}");
        }
        let container = Host {
            root: true,
            filtered: true,
            in_container: true,
            for_anybody: Some(0),
            ..Host::default()
        };
        for part in ["SYS_ADMIN", "seccomp=unconfined", "apparmor=unconfined"] {
            assert!(said(&container).contains(part), "{part}");
        }
        assert!(!said(&container).contains("sysctl"), "not what root needs");
        assert!(said(&Host::default()).contains("dmesg"));
    }

    #[test]
    fn a_refusal_is_told_from_a_mishap() {
        assert!(is_refusal(&io::Error::from_raw_os_error(1)));
        assert!(!is_refusal(&io::Error::from_raw_os_error(2)));
        let _ = Host::here();
    }
}
