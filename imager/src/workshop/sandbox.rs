//! Runs a program inside the tools tree.
//!
//! The child gets a mount namespace whose root is a small tmpfs that holds
//!
//! ```text
//! /usr, /bin, /sbin, /lib*    the tools tree's, read-only
//! /etc                        the tools tree's, with the host's resolv.conf, hosts, passwd, group and ssl
//! everything else             the host's own: /dev /proc /sys /run /tmp /home /root /var …
//! ```
//!
//! so that every path a user names means the same inside. Who is not root gets a user namespace
//! too, in which they stay who they are. The child itself becomes the program: its pid, signals,
//! descriptors, environment and working directory are those of any other child.
//!
//! Everything that needs memory is prepared before the fork; between fork and exec there are only
//! system calls.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, mkdir, symlinkat, write};

/// Top-level names that are the tools tree's own.
const FROM_TREE: [&str; 9] = [
    "usr", "etc", "bin", "sbin", "lib", "lib64", "lib32", "libx32", "libo32",
];

/// What of the host's /etc is seen inside.
const HOST_ETC: [&str; 6] = [
    "resolv.conf",
    "hosts",
    "passwd",
    "group",
    "ssl",
    "nsswitch.conf",
];

/// One thing to do before the program starts.
#[derive(Debug)]
enum Action {
    Directory(CString),
    Link {
        target: CString,
        path: CString,
    },
    Bind {
        from: CString,
        to: CString,
        recursive: bool,
        read_only: bool,
    },
}

/// A prepared sandbox over one tools tree.
#[derive(Debug)]
pub struct Sandbox {
    /// An empty directory on which the new root is mounted.
    mount_point: PathBuf,
    tree: PathBuf,
}

impl Sandbox {
    /// Over the Debian root `tree`; `mount_point` is an empty directory that exists.
    pub fn new(tree: &Path, mount_point: &Path) -> Self {
        Self {
            mount_point: mount_point.to_owned(),
            tree: tree.to_owned(),
        }
    }

    /// Makes `command` run inside. Its program is looked up inside, on the `PATH` that this sets.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let actions = self.plan()?;
        let mount_point = c_string(&self.mount_point)?;
        let identity = identity();
        let directory = match command.get_current_dir() {
            Some(path) => path.to_owned(),
            None => std::env::current_dir().context("the working directory is gone")?,
        };
        let directory = c_string(&directory)?;
        command.env("PATH", "/usr/sbin:/usr/bin");
        // Programs must not depend on what a host happens to be set to.
        command
            .env("LC_ALL", "C.UTF-8")
            .env_remove("LD_PRELOAD")
            .env_remove("LD_LIBRARY_PATH");
        // SAFETY: the closure runs in the forked child of a process with several threads, where
        // only async-signal-safe calls are allowed. It makes system calls alone, on strings that
        // were allocated before; nix copies no path that is already a C string, and the error
        // values are plain numbers.
        unsafe {
            command.pre_exec(move || {
                enter(&mount_point, &actions, identity.as_ref(), &directory)
                    .map_err(io::Error::from)
            });
        }
        Ok(())
    }

    /// What has to be mounted, in order.
    fn plan(&self) -> Result<Vec<Action>> {
        let mut actions = Vec::new();
        let inside = |name: &str| self.mount_point.join(name);
        for entry in fs::read_dir(&self.tree)
            .with_context(|| format!("cannot read the tools tree {}", self.tree.display()))?
        {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if FROM_TREE.contains(&name.as_str()) {
                actions.extend(self.top_level(&entry.path(), &inside(&name), false)?);
            }
        }
        for name in HOST_ETC {
            let (from, to) = (
                Path::new("/etc").join(name),
                self.tree.join("etc").join(name),
            );
            if let (Ok(from_meta), Ok(to_meta)) = (from.metadata(), to.metadata())
                && from_meta.is_dir() == to_meta.is_dir()
            {
                actions.push(Action::Bind {
                    from: c_string(&from)?,
                    to: c_string(&inside("etc").join(name))?,
                    recursive: false,
                    read_only: false,
                });
            }
        }
        for entry in fs::read_dir("/").context("cannot read /")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !FROM_TREE.contains(&name.as_str()) {
                actions.extend(self.top_level(&entry.path(), &inside(&name), true)?);
            }
        }
        Ok(actions)
    }

    fn top_level(&self, from: &Path, to: &Path, host: bool) -> Result<Vec<Action>> {
        let kind = from.symlink_metadata()?.file_type();
        if kind.is_symlink() {
            return Ok(vec![Action::Link {
                target: c_string(&fs::read_link(from)?)?,
                path: c_string(to)?,
            }]);
        }
        if !kind.is_dir() {
            return Ok(Vec::new());
        }
        Ok(vec![
            Action::Directory(c_string(to)?),
            Action::Bind {
                from: c_string(from)?,
                to: c_string(to)?,
                recursive: host,
                read_only: !host,
            },
        ])
    }
}

/// Starts a program in namespaces as a sandbox has them, and nothing else.
///
/// # Errors
/// As the first system call that is refused says.
pub(super) fn probe() -> io::Result<()> {
    let identity = identity();
    let mut command = Command::new("true");
    // SAFETY: as in `Sandbox::enter`: system calls alone, on strings that were allocated before.
    unsafe {
        command.pre_exec(move || namespaces(identity.as_ref()).map_err(io::Error::from));
    }
    command.status().map(|_| ())
}

/// For a user namespace in which who is not root stays who they are.
fn identity() -> Option<(String, String)> {
    (!nix::unistd::geteuid().is_root()).then(|| {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        (format!("{uid} {uid} 1"), format!("{gid} {gid} 1"))
    })
}

const NONE: Option<&CStr> = None;

/// Runs in the child, between fork and exec: system calls only.
fn namespaces(identity: Option<&(String, String)>) -> nix::Result<()> {
    match identity {
        None => unshare(CloneFlags::CLONE_NEWNS)?,
        Some((uid_map, gid_map)) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", uid_map.as_bytes())?;
            write_file(c"/proc/self/gid_map", gid_map.as_bytes())?;
        }
    }
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
}

/// Runs in the child, between fork and exec: system calls only.
fn enter(
    mount_point: &CStr,
    actions: &[Action],
    identity: Option<&(String, String)>,
    directory: &CStr,
) -> nix::Result<()> {
    namespaces(identity)?;
    mount(
        Some(c"tmpfs"),
        mount_point,
        Some(c"tmpfs"),
        MsFlags::empty(),
        Some(c"mode=755"),
    )?;
    // The cache lies below a directory that is bound next: the new root must not be bound into
    // itself with it.
    mount(NONE, mount_point, NONE, MsFlags::MS_UNBINDABLE, NONE)?;
    for action in actions {
        match action {
            Action::Directory(path) => mkdir(path.as_c_str(), Mode::from_bits_truncate(0o755))?,
            Action::Link { target, path } => {
                symlinkat(target.as_c_str(), nix::fcntl::AT_FDCWD, path.as_c_str())?;
            }
            Action::Bind {
                from,
                to,
                recursive,
                read_only,
            } => {
                let flags = MsFlags::MS_BIND
                    | if *recursive {
                        MsFlags::MS_REC
                    } else {
                        MsFlags::empty()
                    };
                mount(Some(from.as_c_str()), to.as_c_str(), NONE, flags, NONE)?;
                if *read_only {
                    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                    // In a user namespace the mount's other flags are locked and have to be
                    // repeated; a tree that stays writable is no reason to fail.
                    let _ = mount(NONE, to.as_c_str(), NONE, flags, NONE);
                }
            }
        }
    }
    chroot(mount_point)?;
    chdir(directory).or_else(|_| chdir(c"/"))
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, content).map(|_| ())
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("{} has a zero byte in its name", path.display()))
}
