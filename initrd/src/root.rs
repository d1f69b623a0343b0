//! The root that the system sees: /etc, /var, what persists; and the change to it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};

use crate::console;
use crate::failure::{Context, Failure};
use crate::persist::{self, Entry};

/// Where the root is put together.
pub const NEW_ROOT: &str = "/newroot";
/// Folder of ours under /run.
pub const RUN: &str = "/run/sternpost";

/// Makes a folder and those above it; that it exists is fine.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path, mode: u32) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .context("making the folder", path.display())
}

/// Mounts the first filesystems of the initramfs.
///
/// # Errors
/// When one cannot be mounted.
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
///
/// # Errors
/// When the kernel refuses.
pub fn mount_root(device: &str) -> Result<(), Failure> {
    mount(device, NEW_ROOT, "erofs", MountFlags::RDONLY, c"")
        .context("mounting the root filesystem", device)
}

/// Puts an overlay in memory over /etc.
///
/// # Errors
/// When the kernel refuses.
pub fn overlay_etc() -> Result<(), Failure> {
    folder(Path::new("/run/sternpost/etc/upper"), 0o755)?;
    folder(Path::new("/run/sternpost/etc/work"), 0o755)?;
    mount(
        "etc",
        "/newroot/etc",
        "overlay",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"lowerdir=/newroot/etc,upperdir=/run/sternpost/etc/upper,workdir=/run/sternpost/etc/work",
    )
    .context("mounting the overlay on", "/etc")
}

/// Writes a file into the overlay.
///
/// # Errors
/// When it cannot be written.
pub fn write_etc(name: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let path = Path::new("/newroot/etc").join(name);
    fs::write(&path, text).context("writing", path.display())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .context("setting the mode of", path.display())
}

/// Binds /state/var to /var and every entry of the list to its place. Returns what could not be done; the machine
/// starts all the same.
pub fn bind_persistent() -> Vec<String> {
    let root = Path::new(NEW_ROOT);
    let mut problems = Vec::new();
    let var = Entry {
        scope: persist::Scope::Shared,
        path: "var".into(),
    };
    if let Err(failure) = bind(&root.join("state/var"), root, &var) {
        problems.push(failure.reason());
    }
    // An image without a list keeps nothing but /var.
    let text = fs::read_to_string(root.join("usr/lib/sternpost/persist.conf")).unwrap_or_default();
    let (entries, refused) = persist::parse(&text);
    problems.extend(refused);
    for entry in entries {
        let source = root
            .join("state")
            .join(entry.scope.folder())
            .join(&entry.path);
        if let Err(failure) = bind(&source, root, &entry) {
            problems.push(failure.reason());
        }
    }
    for problem in &problems {
        console::announce(problem);
    }
    problems
}

fn bind(source: &Path, root: &Path, entry: &Entry) -> Result<(), Failure> {
    let target = root.join(&entry.path);
    if !source.is_dir() {
        folder(source, 0o755)?;
        // What the image says about the folder holds for the one that replaces it.
        if let Ok(like) = fs::metadata(&target) {
            fs::set_permissions(source, like.permissions())
                .context("setting the mode of", source.display())?;
            chown(source, Some(like.uid()), Some(like.gid()))
                .context("setting the owner of", source.display())?;
        }
    }
    if !target.is_dir() {
        folder(&target, 0o755)?;
    }
    mount_bind(source, &target).context(
        "binding",
        format_args!("{} to /{}", source.display(), entry.path.display()),
    )
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
