//! The tools tree: a Debian root that holds every program that makes or boots an image.
//!
//! It is made once by the host's mmdebstrap from `recipes/tools/*.list` (names, one a line, `#`
//! begins a comment) and kept in the cache under the hash of these lists. `native.list` is
//! installed; of `foreign.list`, packages that exist for one architecture only and hold data
//! (UEFI stubs), those of the other architecture are unpacked on top.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::arch::{Architecture, Names as _};
use crate::workshop::cache::KeyBuilder;
use crate::workshop::namespaces;
use crate::workshop::sandbox::Sandbox;
use crate::workshop::{Step, Workshop};

const NATIVE: &str = include_str!("../../../recipes/tools/native.list");
const FOREIGN: &str = include_str!("../../../recipes/tools/foreign.list");

/// Left out: megabytes that no tool reads.
const EXCLUDED: [&str; 9] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/AAVMF/*.ms.fd",
    "/usr/share/AAVMF/*.snakeoil.fd",
    "/usr/share/OVMF/*.snakeoil.fd",
    "/usr/share/go-*/test/*",
    "/usr/lib/systemd/tests/*",
];

/// A Debian root that holds every tool that makes or boots an image. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tools {
    tree: Arc<Path>,
    sandbox: Arc<Sandbox>,
    identity: Arc<str>,
}

impl Tools {
    /// A command that runs `program` (a name on the tools tree's PATH, or an absolute path) inside
    /// the tools tree. The host's directories but /usr, /etc (and /bin, /sbin, /lib*) are there
    /// under the same paths; standard streams, environment and signals work as usual; the process
    /// that is started *is* the tool, so killing its pid kills the tool. The working directory is
    /// the caller's: to run elsewhere, use [`Tools::command_in`] (`current_dir` on the result
    /// looks for the directory outside).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::from(self.std_command(program)?);
        command.kill_on_drop(true);
        Ok(command)
    }

    /// [`Tools::command`] with another working directory.
    pub fn command_in(
        &self,
        directory: &Path,
        program: impl AsRef<OsStr>,
    ) -> Result<tokio::process::Command> {
        let mut command = Command::new(program);
        command.current_dir(directory);
        self.sandbox.enter(&mut command)?;
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }

    /// [`Tools::command`] for code that is not async.
    pub fn std_command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        self.sandbox.enter(&mut command)?;
        Ok(command)
    }

    /// Where a file of the tools tree is seen from outside: `/usr/share/OVMF/OVMF_CODE_4M.fd` is
    /// somewhere in the cache.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.tree.join(inside.trim_start_matches('/'))
    }

    /// systemd's UEFI stub of either architecture, as seen from outside and from inside.
    pub fn efi_stub(&self, architecture: Architecture) -> PathBuf {
        self.path(&format!(
            "/usr/lib/systemd/boot/efi/linux{}.efi.stub",
            architecture.efi()
        ))
    }

    /// The root of the tree.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Names this very tree, for the keys of what depends on its programs' versions.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The tree from the cache, or a new one.
    pub(crate) async fn make(workshop: &Workshop) -> Result<Self> {
        namespaces::ensure()?;
        let key = KeyBuilder::new("tools-1")
            .value("architecture", Architecture::OWN.name())
            .value("native", names(NATIVE).join(","))
            .value("foreign", names(FOREIGN).join(","))
            .value("excluded", EXCLUDED.join(","))
            .finish();
        let entry = workshop
            .step("tools", "tools tree", &key, async |directory, step| {
                make_tree(&directory.join("tree"), step).await?;
                std::fs::create_dir(directory.join("root"))?;
                Ok(())
            })
            .await?;
        let tree = entry.join("tree");
        Ok(Self {
            sandbox: Arc::new(Sandbox::new(&tree, &entry.join("root"))),
            tree: tree.into(),
            identity: key.to_string().into(),
        })
    }
}

/// The names in a list file.
fn names(list: &str) -> Vec<&str> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect()
}

async fn make_tree(tree: &Path, step: &Step) -> Result<()> {
    step.note("installing Debian packages");
    std::fs::create_dir(tree)?;
    let foreign = Architecture::ALL
        .into_iter()
        .find(|a| *a != Architecture::OWN)
        .unwrap_or(Architecture::OWN);
    let mut bootstrap = mmdebstrap("essential");
    bootstrap
        .arg(format!("--include={}", names(NATIVE).join(",")))
        .arg(format!(
            "--architectures={},{}",
            Architecture::OWN.debian(),
            foreign.debian()
        ));
    for path in EXCLUDED {
        bootstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    // A package that Multi-Arch does not let in twice is only unpacked.
    let download = names(FOREIGN)
        .iter()
        .map(|name| format!("{name}:{}", foreign.debian()))
        .collect::<Vec<_>>()
        .join(" ");
    bootstrap
        .arg(format!(
            "--customize-hook=mkdir \"$1/foreign\" && cd \"$1/foreign\" && \
             APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download {download}"
        ))
        .arg(
            "--customize-hook=for deb in \"$1\"/foreign/*.deb; do \
             dpkg-deb --fsys-tarfile \"$deb\" | tar -x --keep-directory-symlink --skip-old-files -C \"$1\"; done; \
             rm -r \"$1/foreign\"",
        )
        // The sandbox mounts the host's over these.
        .arg("--customize-hook=cd \"$1/etc\" && rm -f resolv.conf hosts && touch resolv.conf hosts");
    bootstrap.args(["trixie", "-"]);
    let mut extract = Command::new("tar");
    extract
        .args(["-x", "--no-same-owner", "--exclude=./dev/*", "-C"])
        .arg(tree);
    let (mut bootstrap, mut extract) = (bootstrap, extract);
    tokio::task::spawn_blocking(move || pipe(&mut bootstrap, &mut extract)).await?
}

/// The host's mmdebstrap: as root, or in a user namespace.
pub(crate) fn mmdebstrap(variant: &str) -> Command {
    let mut command = Command::new("mmdebstrap");
    let mode = if nix::unistd::geteuid().is_root() {
        "root"
    } else {
        "unshare"
    };
    command
        .args(["--format=tar", "--aptopt=APT::Install-Recommends \"false\""])
        .args([
            "--aptopt=Acquire::Languages \"none\"",
            "--aptopt=Acquire::Retries \"3\"",
        ])
        .arg(format!("--mode={mode}"))
        .arg(format!("--variant={variant}"))
        .stdin(Stdio::null());
    command
}

/// Runs `from | to`; the error has what either said.
pub(crate) fn pipe(from: &mut Command, to: &mut Command) -> Result<()> {
    let name = from.get_program().to_string_lossy().into_owned();
    let log = tempfile::NamedTempFile::new()?;
    let mut source = from
        .stdout(Stdio::piped())
        .stderr(log.reopen()?)
        .spawn()
        .with_context(|| cannot_start(&name))?;
    let output = source.stdout.take().context("no standard output")?;
    let sink_name = to.get_program().to_string_lossy().into_owned();
    let sink = to
        .stdin(output)
        .stderr(log.reopen()?)
        .status()
        .with_context(|| cannot_start(&sink_name))?;
    let source = source.wait()?;
    if !source.success() || !sink.success() {
        let text = std::fs::read_to_string(log.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n    ");
        let (name, status) = if sink.success() {
            (name, source)
        } else {
            (sink_name, sink)
        };
        bail!("{name} failed ({status}); it said:\n    {tail}");
    }
    Ok(())
}

fn cannot_start(program: &str) -> String {
    format!("cannot start {program}; host-packages.txt lists what the host needs")
}
