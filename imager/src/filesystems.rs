//! The two filesystems that an image is shipped with: the ESP and `state`.
//!
//! Both are made by the tools tree's own mkfs with every identifier and time given, so that equal
//! inputs give equal bytes. The ESPs are made once and written twice: they are the same.

use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::layout;

use crate::arch::Architecture;
use crate::gpt::derived_guid;
use crate::tool::{hole, run};
use crate::tools::Tools;

const MIB: u64 = 1 << 20;

/// Bytes of `state` as shipped; the first boot grows it to the end of the disk.
pub const STATE_SIZE: u64 = 256 * MIB;

/// Bytes of an ESP, as the layout has it.
fn esp_size(sector_size: u32) -> Result<u64> {
    let any = layout::ALIGNMENT;
    let sizes = layout::Sizes {
        boot: any,
        recovery: any,
        root: any,
        state: STATE_SIZE,
    };
    let plan = layout::plan(&sizes, sector_size).context("laying out the disk")?;
    let esp = plan
        .partition(layout::Part::EspA)
        .context("a layout without an ESP")?;
    Ok(esp.size)
}

/// Makes an ESP image with the loader at the removable-media path.
///
/// # Errors
/// One of the tools fails.
pub async fn make_esp(
    tools: &Tools,
    out: &Path,
    architecture: Architecture,
    sector_size: u32,
    loader: &Path,
    epoch: u64,
) -> Result<()> {
    let what = "making the ESP";
    hole(out, esp_size(sector_size)?)?;
    let mut mkfs = tools.command("mkfs.vfat")?;
    mkfs.args([
        "--invariant",
        "-F",
        "32",
        "-s",
        "1",
        "-h",
        "0",
        "-n",
        "STERNPOST",
        "-i",
        "53505354",
    ])
    .args(["-S", &sector_size.to_string()])
    .arg(out)
    .env("SOURCE_DATE_EPOCH", epoch.to_string());
    run(what, &mut mkfs).await?;
    let mut mmd = tools.command("mmd")?;
    mmd.arg("-i").arg(out).args(["::/EFI", "::/EFI/BOOT"]);
    run(what, mtools(&mut mmd, epoch)).await?;
    // mcopy -m keeps the file's own time, so that has to be the build's.
    let staged = out.with_extension("efi");
    std::fs::copy(loader, &staged)
        .with_context(|| format!("copying the loader to {}", staged.display()))?;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
    std::fs::File::options()
        .write(true)
        .open(&staged)
        .and_then(|file| file.set_modified(time))
        .with_context(|| format!("setting the time of {}", staged.display()))?;
    let name = format!("::/EFI/BOOT/BOOT{}.EFI", architecture.efi().to_uppercase());
    let mut mcopy = tools.command("mcopy")?;
    mcopy.arg("-m").arg("-i").arg(out).arg(&staged).arg(name);
    run(what, mtools(&mut mcopy, epoch)).await?;
    std::fs::remove_file(&staged).with_context(|| format!("removing {}", staged.display()))
}

fn mtools(command: &mut tokio::process::Command, epoch: u64) -> &mut tokio::process::Command {
    command
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("TZ", "UTC")
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("MTOOLSRC", "/dev/null")
}

/// Makes the `state` filesystem with its top directories.
///
/// # Errors
/// mkfs.ext4 fails.
pub async fn make_state(tools: &Tools, out: &Path, product: &str, epoch: u64) -> Result<()> {
    hole(out, STATE_SIZE)?;
    let tree =
        tempfile::tempdir().context("making a directory for the state filesystem's content")?;
    let directories = ["var", "shared", "epoch", "sternpost"];
    for directory in directories {
        let path = tree.path().join(directory);
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        set_mode(&path, 0o755)?;
    }
    set_mode(tree.path(), 0o755)?;
    let uuid = derived_guid(&["state", product]);
    let seed = derived_guid(&["state hash seed", product]);
    let mut mkfs = tools.command("mkfs.ext4")?;
    mkfs.args(layout::STATE_FILESYSTEM)
        .args(["-U", &uuid.to_string(), "-E"])
        .arg(format!(
            "hash_seed={seed},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard"
        ))
        .arg("-d")
        .arg(tree.path())
        .arg(out)
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    let what = "making the state filesystem";
    run(what, &mut mkfs).await?;
    // mkfs gives the directories to whoever builds; in the machine that would be one of its users.
    let commands = directories.map(|directory| {
        format!("set_inode_field /{directory} uid 0\nset_inode_field /{directory} gid 0\n")
    });
    let script = tree.path().join("commands");
    std::fs::write(&script, commands.concat())
        .with_context(|| format!("writing {}", script.display()))?;
    let mut debugfs = tools.command("debugfs")?;
    debugfs.args(["-w", "-f"]).arg(&script).arg(out);
    debugfs.env("SOURCE_DATE_EPOCH", epoch.to_string());
    run(what, &mut debugfs).await?;
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}
