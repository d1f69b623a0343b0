//! What of Debian's packages an image does not need, and what a read-only root needs besides.
//! Pure: changes a [`Tree`].

use crate::root::tree::{Bytes, Entry, Node, Tree};

/// Raised when this file changes what comes out.
pub(super) const VERSION: &str = "4";

/// Directories whose content is left out.
const EMPTIED: [&str; 20] = [
    "boot",
    "dev",
    "media",
    "mnt",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/include",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/backups",
    "var/cache",
    "var/lib/apt",
    "var/log",
    "var/tmp",
];

/// Files and directories that are left out.
const REMOVED: [&str; 36] = [
    // What would be of this build alone.
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/shadow-",
    "etc/group-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/apt",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    // Packages are not changed in the running system.
    "etc/dpkg",
    "var/lib/dpkg",
    "var/lib/ucf",
    "var/lib/pam",
    "var/lib/shells.state",
    "var/cache/debconf",
    "etc/kernel",
    "etc/initramfs-tools",
    "usr/lib/kernel",
    "usr/bin/kernel-install",
    // Ours takes its place.
    "usr/bin/bootctl",
    "usr/share/bash-completion/completions/bootctl",
    "usr/lib/systemd/system/systemd-boot-update.service",
    "usr/lib/systemd/system/systemd-boot-random-seed.service",
    "usr/lib/systemd/system/systemd-bless-boot.service",
    "usr/lib/systemd/system-generators/systemd-bless-boot-generator",
    "usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
    // Nothing that they look after is there.
    "etc/systemd/system/timers.target.wants/dpkg-db-backup.timer",
    "etc/systemd/system/timers.target.wants/e2scrub_all.timer",
    "etc/systemd/system/multi-user.target.wants/e2scrub_reap.service",
    "etc/cron.daily",
    "etc/cron.d",
    "etc/logrotate.d",
];

/// Directories that a running system mounts something on.
const MOUNT_POINTS: [(&str, u32); 14] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("state", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/lib/sternpost", 0o755),
    ("var", 0o755),
];

/// Takes out what is not needed, or would differ from build to build.
pub(super) fn clean(tree: &mut Tree, epoch: u64) {
    for path in EMPTIED {
        tree.empty(path);
    }
    for path in REMOVED {
        tree.remove(path);
    }
    tree.retain(|name, _| {
        let file = name.rsplit('/').next().unwrap_or_default();
        !(file.ends_with(".dpkg-new")
            || file.ends_with(".dpkg-old")
            || file.ends_with(".dpkg-dist")
            || file == "__pycache__"
            || name.starts_with("etc/ssh/ssh_host_")
            || is_run_level(name))
    });
    let text = |tree: &mut Tree, path: &str, text: &str| {
        let bytes = Bytes::Memory(text.as_bytes().into());
        tree.insert(path, Entry::new(Node::File(bytes), 0o644));
    };
    text(tree, "etc/machine-id", "");
    text(
        tree,
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    );
    text(tree, "etc/fstab", "");
    // /etc was brought up to date with /usr when the image was made: no unit that does that has
    // to run (systemd.unit(5), ConditionNeedsUpdate).
    text(
        tree,
        "etc/.updated",
        &format!("TIMESTAMP_NSEC={epoch}000000000\n"),
    );
    text(
        tree,
        "usr/lib/tmpfiles.d/00-sternpost-var.conf",
        "# What the image brings for /var; what is there stays.\nC+ /var\n",
    );
    tree.insert(
        "etc/resolv.conf",
        Entry::new(
            Node::Symlink("../run/systemd/resolve/stub-resolv.conf".into()),
            0o777,
        ),
    );
}

/// Last of all, when every file is in: /var moves to where tmpfiles copies it from, mount points
/// are made, units' links that lead nowhere go.
pub(super) fn finish(tree: &mut Tree) {
    tree.rename("var", "usr/share/factory/var");
    for (path, mode) in MOUNT_POINTS {
        match tree.get_mut(path) {
            Some(entry) => entry.mode = mode,
            None => tree.insert(path, Entry::new(Node::Directory, mode)),
        }
    }
    let dangling: Vec<String> = tree
        .iter()
        .filter(|(name, entry)| {
            name.starts_with("etc/systemd/system/") && matches!(entry.node, Node::Symlink(_))
        })
        .filter(|(name, entry)| {
            let Node::Symlink(target) = &entry.node else {
                return false;
            };
            target != "/dev/null" && !tree.exists(name)
        })
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in dangling {
        tree.remove(&name);
    }
}

/// Whether `name` belongs to System V init: `etc/rc2.d` and what is in it.
fn is_run_level(name: &str) -> bool {
    let directory = name
        .strip_prefix("etc/rc")
        .and_then(|rest| rest.split('/').next());
    directory.is_some_and(|directory| directory.len() == 3 && directory.ends_with(".d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in files {
            let node = Node::File(Bytes::Memory(b"x".as_slice().into()));
            tree.insert(path, Entry::new(node, 0o644));
        }
        tree
    }

    #[test]
    fn an_image_has_no_traces_of_its_making() {
        let mut tree = tree(&[
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/sshd_config",
            "etc/rc2.d/S01ssh",
            "etc/passwd-",
            "usr/share/doc/a/copyright",
            "var/lib/dpkg/status",
            "var/lib/systemd/catalog/database",
            "usr/bin/bootctl",
        ]);
        clean(&mut tree, 7);
        finish(&mut tree);
        for gone in [
            "etc/ssh/ssh_host_ed25519_key",
            "etc/rc2.d/S01ssh",
            "etc/passwd-",
            "usr/share/doc/a",
            "usr/share/factory/var/lib/dpkg",
            "usr/bin/bootctl",
        ] {
            assert!(tree.get(gone).is_none(), "{gone}");
        }
        for there in [
            "etc/ssh/sshd_config",
            "usr/share/factory/var/lib/systemd/catalog/database",
            "state",
            "var",
        ] {
            assert!(tree.get(there).is_some(), "{there}");
        }
        assert!(tree.below("var").is_empty());
    }

    #[test]
    fn units_of_removed_packages_are_not_enabled() {
        let mut tree = tree(&["usr/lib/systemd/system/ssh.service"]);
        for (name, target) in [
            ("ssh", "/usr/lib/systemd/system/ssh.service"),
            ("gone", "/usr/lib/systemd/system/gone.service"),
            ("masked", "/dev/null"),
        ] {
            tree.insert(
                &format!("etc/systemd/system/{name}.service"),
                Entry::new(Node::Symlink(target.into()), 0o777),
            );
        }
        finish(&mut tree);
        assert!(tree.get("etc/systemd/system/ssh.service").is_some());
        assert!(tree.get("etc/systemd/system/gone.service").is_none());
        assert!(tree.get("etc/systemd/system/masked.service").is_some());
    }
}
