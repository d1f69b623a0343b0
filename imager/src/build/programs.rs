//! Our own programs, built for the machine that the image is for.
//!
//! | program | target | linked by |
//! | --- | --- | --- |
//! | loader | `*-unknown-uefi` | rust-lld |
//! | initrd, bootctl | `*-unknown-linux-musl`, static: the image may have any libc | rust-lld |
//!
//! bootctl has a little C in it (ring, zstd): compiled by Debian's gcc of the architecture with musl's headers, linked
//! with the libc that comes with Rust's target.
//!
//! cargo runs inside the tools tree, so that compiler and libraries are the same on every host, and
//! keeps its own cache. Paths of this machine are mapped away: the programs are the same bytes
//! whatever directory they are built in.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::arch::Architecture;
use crate::boot::loader;
use crate::workshop::Workshop;
use crate::workshop::cache::{Cache, KeyBuilder, hash_bytes};
use crate::workshop::tools::Tools;

/// The programs of one architecture.
#[derive(Clone, Debug)]
pub struct Programs {
    /// A UEFI application whose `.sptrust` section is still empty.
    pub loader: PathBuf,
    /// PID 1 of the initramfs.
    pub initrd: PathBuf,
    pub bootctl: PathBuf,
    /// Units and other files of bootctl's that go into the image.
    pub units: PathBuf,
}

/// Where the workspace's sources are: `$STERNPOST_SOURCE`, or where this program was built.
pub fn workspace() -> Result<PathBuf> {
    let directory = match std::env::var_os("STERNPOST_SOURCE") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(env!("STERNPOST_SOURCE")),
    };
    let directory = directory.canonicalize().with_context(|| {
        format!(
            "looking for Sternpost's sources in {}; say where they are in STERNPOST_SOURCE",
            directory.display()
        )
    })?;
    ensure!(
        directory.join("loader/Cargo.toml").exists(),
        "{} does not hold Sternpost's sources; say where they are in STERNPOST_SOURCE",
        directory.display()
    );
    Ok(directory)
}

/// The profile of cargo that they are built with, and its folder.
const PROFILE: &str = "machine";

/// Builds all three.
///
/// # Errors
/// cargo cannot be found or fails; its messages are part of the error.
pub async fn build(workshop: &Workshop, architecture: Architecture) -> Result<Programs> {
    let tools = workshop.tools().await?;
    let source = workspace()?;
    let target_dir = workshop.cache().directory("programs")?;
    let cargo = Cargo {
        tools,
        program: find_cargo()?,
        source: &source,
        target_dir: &target_dir,
    };
    let step = workshop
        .progress()
        .start(&format!("programs for {architecture}"));
    cargo.fetch().await?;
    // Another build, of another checkout perhaps, puts its programs into the same place.
    let lock = {
        let cache = workshop.cache().clone();
        let key = KeyBuilder::new("programs").finish();
        tokio::task::spawn_blocking(move || cache.lock("programs", &key)).await??
    };
    let arch = architecture.name();
    let mut built = Vec::new();
    for (package, target) in [
        ("loader", format!("{arch}-unknown-uefi")),
        ("initrd", format!("{arch}-unknown-linux-musl")),
        ("bootctl", format!("{arch}-unknown-linux-musl")),
    ] {
        step.note(package);
        let program = cargo.build(package, &target).await?;
        let what = || format!("keeping {}", program.display());
        let mut bytes = std::fs::read(&program).with_context(what)?;
        if target.ends_with("-uefi") {
            loader::forget_linking(&mut bytes).with_context(what)?;
        }
        built.push(keep(workshop.cache(), &bytes).with_context(what)?);
    }
    drop(lock);
    step.done();
    let [loader, initrd, bootctl] = built
        .try_into()
        .map_err(|_| anyhow::anyhow!("three programs were to be built"))?;
    Ok(Programs {
        loader,
        initrd,
        bootctl,
        units: source.join("bootctl/units"),
    })
}

/// A program as a file of the cache that nothing changes any more, named by its content.
fn keep(cache: &Cache, bytes: &[u8]) -> Result<PathBuf> {
    let digest = hash_bytes(bytes);
    if let Some(kept) = cache.blob(&digest) {
        return Ok(kept);
    }
    let mut file = cache.new_blob()?;
    file.write_all(bytes)?;
    cache.commit_blob(&digest, file)
}

struct Cargo<'a> {
    tools: &'a Tools,
    program: PathBuf,
    source: &'a Path,
    target_dir: &'a Path,
}

impl Cargo<'_> {
    /// Downloads what Cargo.lock names, outside of the tools tree, where the host's network set-up is.
    async fn fetch(&self) -> Result<()> {
        let output = tokio::process::Command::new(&self.program)
            .args(["fetch", "--locked", "--quiet"])
            .current_dir(self.source)
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("running {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "downloading the crates of Cargo.lock failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// cargo, in the workspace. rustup's programs find one another in its directory, wherever `CARGO_HOME` is.
    fn command(&self) -> Result<tokio::process::Command> {
        let mut command = self.tools.command_in(self.source, &self.program)?;
        let directory = self.program.parent().unwrap_or(Path::new("/usr/bin"));
        command.env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin", directory.display()),
        );
        Ok(command)
    }

    async fn build(&self, package: &str, target: &str) -> Result<PathBuf> {
        let mut command = self.command()?;
        command
            .args([
                "build",
                "--profile",
                PROFILE,
                "--locked",
                "--offline",
                "--quiet",
                "--package",
                package,
            ])
            .args(["--target", target, "--message-format", "short"])
            .env("CARGO_TARGET_DIR", self.target_dir)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                self.rustflags(target)?.join("\x1f"),
            )
            .env("SOURCE_DATE_EPOCH", "0")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("CARGO_BUILD_RUSTC_WRAPPER")
            .env_remove("RUSTC_WRAPPER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if target.ends_with("-musl") {
            self.link_statically(&mut command, target)?;
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("running {} in the tools tree", self.program.display()))?;
        let mut messages = String::new();
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines
                .next_line()
                .await
                .context("reading cargo's messages")?
            {
                messages.push_str(&line);
                messages.push('\n');
            }
        }
        let status = child.wait().await.context("waiting for cargo")?;
        if !status.success() {
            bail!(
                "building {package} for {target} failed ({status}):\n{}",
                messages.trim_end()
            );
        }
        let file = if target.ends_with("-uefi") {
            format!("{package}.efi")
        } else {
            package.to_owned()
        };
        let path = self.target_dir.join(target).join(PROFILE).join(file);
        ensure!(
            path.exists(),
            "cargo built {package} but {} is not there",
            path.display()
        );
        Ok(path)
    }

    /// rust-lld as the linker, and Debian's gcc with musl's headers for what is C.
    fn link_statically(&self, command: &mut tokio::process::Command, target: &str) -> Result<()> {
        let arch = target.split('-').next().unwrap_or_default();
        let name = target.replace('-', "_");
        let cflags = format!(
            "-isystem /usr/include/{arch}-linux-musl -ffile-prefix-map={}=/cargo -ffile-prefix-map={}=/target -g0",
            cargo_home()?.display(),
            self.target_dir.display()
        );
        command
            .env(
                format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()),
                "rust-lld",
            )
            .env(format!("CC_{name}"), format!("{arch}-linux-gnu-gcc"))
            .env(format!("CFLAGS_{name}"), cflags);
        Ok(())
    }

    /// The same for every checkout, so that they share what is built: cargo runs in the workspace and
    /// names its members by relative paths, which need no mapping.
    fn rustflags(&self, target: &str) -> Result<Vec<String>> {
        let map = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let mut flags = vec![
            map(&rustup_home()?, "/rustup"),
            map(&cargo_home()?, "/cargo"),
            map(self.target_dir, "/target"),
        ];
        if target.ends_with("-uefi") {
            // Firmware runs without the operating system's care for SIMD registers.
            flags.push("--cfg=curve25519_dalek_backend=\"serial\"".to_owned());
        }
        Ok(flags)
    }
}

fn home(variable: &str, default: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(variable) {
        return Ok(PathBuf::from(directory));
    }
    let home =
        std::env::var_os("HOME").with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(PathBuf::from(home).join(default))
}

fn cargo_home() -> Result<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn rustup_home() -> Result<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
}

/// rustup's cargo, which picks the toolchain of rust-toolchain.toml.
fn find_cargo() -> Result<PathBuf> {
    let usual = cargo_home()?.join("bin/cargo");
    if usual.exists() {
        return Ok(usual);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("cargo"))
        .find(|candidate| candidate.exists())
        .context("cargo was not found; install rustup (it reads rust-toolchain.toml)")
}
