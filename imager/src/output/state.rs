//! The writable filesystem that an image is shipped with: `state`.
//!
//! It is made by the tools tree's own mkfs with every identifier and time given, so that equal inputs
//! give equal bytes. The ESPs are written by `boot-core`, as they are in the field.

use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::layout;

use crate::output::gpt::derived_guid;
use crate::workshop::tool::{hole, run};
use crate::workshop::tools::Tools;

const MIB: u64 = 1 << 20;

/// Bytes of `state` as shipped; the first boot grows it to the end of the disk.
pub const STATE_SIZE: u64 = 256 * MIB;

/// Makes the `state` filesystem with its top directories.
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
