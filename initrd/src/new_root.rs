//! The root that the system sees, as it is put together; and the change to it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::failure::{Context, Failure};

/// Where the root is put together.
pub const NEW_ROOT: &str = "/newroot";
/// Folder of ours under /run.
pub const RUN: &str = "/run/sternpost";

/// Makes a folder and those above it; that it exists is fine.
pub fn folder(path: &Path, mode: u32) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .context("making the folder", path.display())
}

/// Mounts the first filesystems of the initramfs.
pub fn mount_first() -> Result<(), Failure> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let open = MountFlags::NOSUID | MountFlags::NODEV;
    for (kind, at, flags, data) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755"),
        ("proc", "/proc", plain, c""),
        ("sysfs", "/sys", plain, c""),
        ("tmpfs", "/run", open, c"mode=755,size=20%"),
    ] {
        folder(Path::new(at), 0o755)?;
        mount(kind, at, kind, flags, data).context("mounting", at)?;
    }
    folder(Path::new(RUN), 0o755)?;
    folder(Path::new(NEW_ROOT), 0o755)
}

/// Mounts the root filesystem.
pub fn mount_root(device: &str) -> Result<(), Failure> {
    mount(device, NEW_ROOT, "erofs", MountFlags::RDONLY, c"")
        .context("mounting the root filesystem", device)
}

/// Frees the memory of the initramfs: removes every file of its filesystem, and nothing of what is mounted in it.
pub fn free_initramfs() {
    if let Some(device) = device_of(Path::new("/")) {
        empty(Path::new("/"), device);
    }
}

fn device_of(path: &Path) -> Option<(u32, u32)> {
    let found = statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::TYPE,
    )
    .ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

fn empty(folder: &Path, device: (u32, u32)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if device_of(&path) != Some(device) {
            continue;
        }
        // A file that cannot be removed costs memory, no more.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Moves the mounts over and makes the new root the root. What is left is to execute its init.
///
/// # Errors
/// When the kernel refuses, or the root lacks a folder to mount on.
pub fn switch() -> Result<(), Failure> {
    for name in ["dev", "proc", "sys", "run"] {
        let target = Path::new(NEW_ROOT).join(name);
        mount_move(Path::new("/").join(name), &target)
            .context("moving the mount to", target.display())?;
    }
    rustix::process::chdir(NEW_ROOT).context("entering", NEW_ROOT)?;
    mount_move(".", "/").context("moving the root to", "/")?;
    rustix::process::chroot(".").context("changing root to", NEW_ROOT)?;
    rustix::process::chdir("/").context("entering", "/")
}

/// Whether a path is a program file, seen from inside the new root.
#[must_use]
pub fn has_program(path: &str) -> bool {
    // Not followed: /sbin/init is a link whose target is absolute in the new root.
    let inside = Path::new(NEW_ROOT).join(path.trim_start_matches('/'));
    statx(CWD, &inside, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE).is_ok_and(|found| {
        matches!(
            FileType::from_raw_mode(found.stx_mode.into()),
            FileType::RegularFile | FileType::Symlink
        )
    })
}
