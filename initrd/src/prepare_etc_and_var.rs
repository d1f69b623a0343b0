//! /etc, /var, what persists, and the machine's id: what of the new root is writable, and where it lies.

use std::fs;
use std::iter;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Instant, SystemTime};

use boot_core::boot_report::BootReport;
use rustix::mount::{MountFlags, mount, mount_bind};

use crate::console;
use crate::failure::{Context, Failure};
use crate::machine_id::machine_id;
use crate::new_root::{NEW_ROOT, folder};
use crate::persist::{self, Entry};
use crate::start::Start;

/// Folders of `state`, /etc, /var, what persists, identity. Whether the identity is new.
pub(crate) fn prepare(start: &Start, report: &mut BootReport) -> Result<bool, Failure> {
    let state = Path::new(NEW_ROOT).join("state");
    let ours = state.join("sternpost");
    for (path, mode) in [(state.join("var"), 0o755), (ours.clone(), 0o755)] {
        if let Err(failure) = folder(&path, mode) {
            console::announce(failure.reason());
            report.notes.push(failure.reason());
        }
    }
    let (id, first_boot, failure) = machine_id(&ours, &unique(start));
    if let Some(failure) = failure {
        console::announce(failure.reason());
        report.notes.push(failure.reason());
    }
    overlay_etc()?;
    write_etc("machine-id", &format!("{id}\n"), 0o444)?;
    if let Ok(hostname) = small_file::read_to_string(&ours.join("hostname")) {
        write_etc("hostname", &hostname, 0o644)?;
    }
    bind_persistent(report);
    Ok(first_boot)
}

/// What differs between machines and starts: the loader's hand-over, the firmware's id of the machine, the clocks.
fn unique(start: &Start) -> Vec<u8> {
    let mut bytes = start.raw.clone();
    for id in ["product_uuid", "product_serial", "board_serial"] {
        // A machine without one is told apart by the rest.
        bytes.extend(fs::read(Path::new("/sys/class/dmi/id").join(id)).unwrap_or_default());
    }
    bytes.extend(format!("{:?} {:?}", SystemTime::now(), Instant::now()).into_bytes());
    bytes
}

/// Puts an overlay in memory over /etc.
fn overlay_etc() -> Result<(), Failure> {
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
fn write_etc(name: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let path = Path::new("/newroot/etc").join(name);
    fs::write(&path, text).context("writing", path.display())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .context("setting the mode of", path.display())
}

/// Binds /state/var to /var and every entry of the list to its place. What cannot be done is reported; the machine
/// starts all the same.
fn bind_persistent(report: &mut BootReport) {
    let root = Path::new(NEW_ROOT);
    // An image without a list keeps nothing but /var.
    let text = fs::read_to_string(root.join("usr/lib/sternpost/persist.conf")).unwrap_or_default();
    let (entries, refused) = persist::parse(&text);
    refused.iter().for_each(console::announce);
    report.notes.extend(refused);
    let var = Entry {
        scope: persist::Scope::Shared,
        path: "var".into(),
    };
    let listed = entries.into_iter().map(|entry| {
        let folder = root.join("state").join(entry.scope.folder());
        (folder.join(&entry.path), entry)
    });
    for (source, entry) in iter::once((root.join("state/var"), var)).chain(listed) {
        if let Err(failure) = bind(&source, root, &entry) {
            console::announce(failure.reason());
            report.unbound.push(failure.reason());
        }
    }
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
