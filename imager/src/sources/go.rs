//! Programs built from Go modules.
//!
//! A folder with go.mod and go.sum says everything that goes into a program: the modules by
//! version and sum, and by its `toolchain` line the compiler. Nothing else is asked of the host:
//! the tools tree's `go` fetches exactly that toolchain once.
//!
//! ```text
//! CACHE/go/mod     module cache, toolchains among it: what go.sum names, checked by `go`
//! CACHE/go/build   compiled packages
//! ```
//!
//! Modules are fetched only when one is missing, before the build; the build itself has no
//! network. No C, no paths and no version control data go into a program, so that the same
//! folder gives the same bytes on every host (`-trimpath`, `CGO_ENABLED=0`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::arch::{Architecture, Names as _};
use crate::recipe::GoSource;
use crate::workshop::cache::{Key, KeyBuilder};
use crate::workshop::{Step, Workshop};

/// Go builds use every core by themselves; two at once only get in each other's way.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How many lines of a failed build are shown.
const SHOWN_LINES: usize = 20;

/// Builds the program in the tools tree's Go, from the module cache, and gives the path of the
/// finished binary in the cache.
///
/// # Errors
///
/// If go.mod names no toolchain, a module is neither cached nor to be had, its sum is not the one
/// in go.sum, or it does not build.
pub async fn build(
    workshop: &Workshop,
    source: &GoSource,
    architecture: Architecture,
) -> Result<PathBuf> {
    let toolchain = toolchain(&source.modules)?;
    let name = program_name(&source.package, &source.modules);
    let what = format!("go build {name} ({architecture})");
    let key = key(source, &toolchain, architecture)?;
    let made = workshop
        .step("go", &what, &key, async |folder: &Path, step: &Step| {
            step.note("waiting for another Go build");
            let _one = ONE_AT_A_TIME.lock().await;
            let go = Go::new(workshop, source, toolchain, architecture).await?;
            let packages = go.fetch(step).await?;
            go.compile(&folder.join("program"), packages, step)
                .await
                .with_context(|| {
                    format!(
                        "cannot build {} for {architecture} from {}",
                        source.package,
                        source.modules.display()
                    )
                })
        })
        .await?;
    Ok(made.join("program"))
}

/// What is built, as `go install` would be told: `PACKAGE@VERSION`. A package of the folder itself,
/// which has no version, is its module.
pub fn versioned(source: &GoSource) -> Result<String> {
    let text = go_mod(&source.modules)?;
    let package = source.package.as_str();
    let required = text.lines().filter_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        let (module, version) = (words.next()?, words.next()?);
        let inside = package.strip_prefix(module)?;
        ((inside.is_empty() || inside.starts_with('/')) && version.starts_with('v'))
            .then_some((module, version))
    });
    // A module may lie below another one.
    if let Some((_, version)) = required.max_by_key(|(module, _)| module.len()) {
        return Ok(format!("{package}@{version}"));
    }
    let own = text.lines().find_map(|line| line.strip_prefix("module "));
    let own = own.unwrap_or_default().trim();
    Ok(match package {
        "." => own.to_owned(),
        package => format!("{own}/{}", package.trim_start_matches("./")),
    })
}

fn go_mod(modules: &Path) -> Result<String> {
    let file = modules.join("go.mod");
    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// The toolchain that go.mod asks for, such as `go1.26.8`.
fn toolchain(modules: &Path) -> Result<String> {
    let text = go_mod(modules)?;
    let found = text.lines().find_map(|line| {
        let version = line.trim().strip_prefix("toolchain ")?.trim();
        version.strip_prefix("go").map(|_| version.to_owned())
    });
    found.with_context(|| {
        format!(
            "{} has no `toolchain` line; add one such as `toolchain go1.26.8`, so that every host builds the same bytes",
            modules.join("go.mod").display()
        )
    })
}

/// A short name for messages: the last element of the import path that is not a major version.
fn program_name(package: &str, modules: &Path) -> String {
    let is_major = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    package
        .rsplit('/')
        .find(|part| !part.is_empty() && *part != "." && !is_major(part))
        .map(str::to_owned)
        .or_else(|| Some(modules.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| package.to_owned())
}

/// Everything that the bytes of the program depend on. The recipe's other programs in the same
/// folder share go.mod and go.sum, and so are built again with it; that takes a link each.
fn key(source: &GoSource, toolchain: &str, architecture: Architecture) -> Result<Key> {
    let mut key = KeyBuilder::new("go 1")
        .value("package", &source.package)
        .value("ldflags", source.ldflags.join("\0"))
        .value("tags", source.tags.join(","))
        .value("toolchain", toolchain)
        .value("architecture", architecture.debian());
    for file in inputs(&source.modules)? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        key = key.file(&name, &file)?;
    }
    Ok(key.finish())
}

/// go.mod, go.sum and the Go files beside them, in the order of their names.
fn inputs(modules: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = std::fs::read_dir(modules)
        .with_context(|| format!("cannot read the Go modules' folder {}", modules.display()))?;
    let mut files = BTreeSet::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read the Go modules' folder {}", modules.display()))?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "go.mod" || name == "go.sum" || name.ends_with(".go") {
            files.insert(path);
        }
    }
    Ok(files)
}

/// The `go` command for one program.
struct Go<'a> {
    workshop: &'a Workshop,
    source: &'a GoSource,
    toolchain: String,
    architecture: Architecture,
    cache: PathBuf,
}

impl<'a> Go<'a> {
    async fn new(
        workshop: &'a Workshop,
        source: &'a GoSource,
        toolchain: String,
        architecture: Architecture,
    ) -> Result<Self> {
        workshop.tools().await?;
        let cache = workshop.cache().directory("go")?;
        Ok(Self {
            workshop,
            source,
            toolchain,
            architecture,
            cache,
        })
    }

    /// `go` with an environment in which nothing of the host's own Go settings counts, except for
    /// where modules come from.
    async fn command(&self, network: bool) -> Result<Command> {
        let tools = self.workshop.tools().await?;
        let mut command = tools.command_in(&self.source.modules, "go")?;
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let kept = matches!(
                &*name,
                "GOPROXY" | "GOSUMDB" | "GONOSUMDB" | "GONOPROXY" | "GOPRIVATE"
            );
            if !kept && (name.starts_with("GO") || name.starts_with("CGO_")) {
                command.env_remove(&*name);
            }
        }
        if !network {
            command.env("GOPROXY", "off");
        }
        command
            .env("GOENV", "off")
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=readonly -modcacherw")
            .env("GOTOOLCHAIN", &self.toolchain)
            .env("GOPATH", self.cache.join("path"))
            .env("GOMODCACHE", self.cache.join("mod"))
            .env("GOCACHE", self.cache.join("build"))
            .env("XDG_CONFIG_HOME", self.cache.join("config"))
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .env("GOARCH", self.architecture.debian())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Has every module that the program needs in the module cache; gives the number of packages.
    async fn fetch(&self, step: &Step) -> Result<usize> {
        step.note("looking for its modules");
        let cached = self.list(false).await?;
        if cached.status.success() {
            return Ok(lines(&cached.stdout));
        }
        step.note("downloading modules");
        let fetched = self.list(true).await?;
        if fetched.status.success() {
            return Ok(lines(&fetched.stdout));
        }
        bail!(
            "cannot get the Go modules of {} in {}:\n{}\nThe build needs the module proxy (GOPROXY) until they are in the cache. \
             If a sum does not match, what was downloaded is not what go.sum was written for.",
            self.source.package,
            self.source.modules.display(),
            tail(&String::from_utf8_lossy(&fetched.stderr))
        )
    }

    /// Lists the packages that go into the program, which needs their modules.
    async fn list(&self, network: bool) -> Result<Output> {
        let mut command = self.command(network).await?;
        command.args(["list", "-deps", "-tags", &self.source.tags.join(",")]);
        command.arg(&self.source.package);
        command
            .output()
            .await
            .context("cannot run `go list` in the tools tree")
    }

    async fn compile(&self, program: &Path, packages: usize, step: &Step) -> Result<()> {
        let mut ldflags = vec!["-s".to_owned(), "-w".to_owned()];
        ldflags.extend(self.source.ldflags.iter().cloned());
        let mut command = self.command(false).await?;
        command
            .args(["build", "-v", "-trimpath", "-buildvcs=false"])
            .args(["-tags", &self.source.tags.join(",")])
            .args(["-ldflags", &ldflags.join(" ")])
            .arg("-o")
            .arg(program)
            .arg(&self.source.package)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .context("cannot run `go build` in the tools tree")?;
        let errors = child
            .stderr
            .take()
            .context("`go build` has no standard error")?;
        let mut said = String::new();
        let mut compiled = 0_usize;
        let mut text = BufReader::new(errors).lines();
        while let Some(line) = text
            .next_line()
            .await
            .context("cannot read what `go build` says")?
        {
            if is_package(&line) {
                compiled += 1;
                step.note(&format!(
                    "{compiled} packages of at most {packages}: {line}"
                ));
            } else {
                said.push_str(&line);
                said.push('\n');
            }
        }
        let status = child.wait().await.context("cannot wait for `go build`")?;
        if !status.success() {
            bail!("`go build` ended with {status}:\n{}", tail(&said));
        }
        Ok(())
    }
}

/// `go build -v` prints the import path of each package that it compiles; all else is a complaint.
fn is_package(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#') && !line.contains([' ', ':', '\t'])
}

fn lines(bytes: &[u8]) -> usize {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count()
}

/// The last lines of what a tool said.
fn tail(text: &str) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let first = all.len().saturating_sub(SHOWN_LINES);
    all.get(first..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_after_its_package() {
        let folder = Path::new("/modules/pause");
        assert_eq!(
            program_name("k8s.io/kubernetes/cmd/kubelet", folder),
            "kubelet"
        );
        assert_eq!(program_name("go.etcd.io/etcd/server/v3", folder), "server");
        assert_eq!(program_name(".", folder), "pause");
    }

    #[test]
    fn a_program_has_the_version_of_its_module() {
        let folder = tempfile::tempdir().unwrap();
        let text = "module box/tools\n\nrequire (\n\tgo.etcd.io/etcd v0.1.0\n\tgo.etcd.io/etcd/server/v3 v3.6.8\n)\n\
                    require example.org/tool v1.2.3 // indirect\nreplace example.org/tool => ../tool\n";
        std::fs::write(folder.path().join("go.mod"), text).unwrap();
        let said = |package: &str| {
            versioned(&GoSource {
                modules: folder.path().to_owned(),
                package: package.to_owned(),
                ldflags: Vec::new(),
                tags: Vec::new(),
            })
            .unwrap()
        };
        assert_eq!(
            said("go.etcd.io/etcd/server/v3"),
            "go.etcd.io/etcd/server/v3@v3.6.8"
        );
        assert_eq!(
            said("example.org/tool/cmd/x"),
            "example.org/tool/cmd/x@v1.2.3"
        );
        assert_eq!(said("."), "box/tools");
        assert_eq!(said("./cmd/x"), "box/tools/cmd/x");
    }

    #[test]
    fn the_toolchain_is_the_one_that_go_mod_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("go.mod");
        std::fs::write(&file, "module x\n\ngo 1.26.0\n\ntoolchain go1.26.8\n").unwrap();
        assert_eq!(toolchain(folder.path()).unwrap(), "go1.26.8");
        std::fs::write(&file, "module x\n\ngo 1.26.0\n").unwrap();
        let error = toolchain(folder.path()).unwrap_err().to_string();
        assert!(error.contains("add one such as `toolchain"), "{error}");
    }

    #[test]
    fn what_is_built_depends_on_sums_flags_and_architecture() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("go.mod"), "module x\n").unwrap();
        let source = GoSource {
            modules: folder.path().to_owned(),
            package: ".".into(),
            ldflags: Vec::new(),
            tags: Vec::new(),
        };
        let plain = key(&source, "go1.26.8", Architecture::X86_64).unwrap();
        assert_eq!(
            plain,
            key(&source, "go1.26.8", Architecture::X86_64).unwrap()
        );
        assert_ne!(
            plain,
            key(&source, "go1.26.9", Architecture::X86_64).unwrap()
        );
        assert_ne!(
            plain,
            key(&source, "go1.26.8", Architecture::Aarch64).unwrap()
        );
        let tagged = GoSource {
            tags: vec!["small".into()],
            ..source.clone()
        };
        assert_ne!(
            plain,
            key(&tagged, "go1.26.8", Architecture::X86_64).unwrap()
        );
        std::fs::write(folder.path().join("go.sum"), "a sum\n").unwrap();
        assert_ne!(
            plain,
            key(&source, "go1.26.8", Architecture::X86_64).unwrap()
        );
    }

    #[test]
    fn packages_are_told_from_complaints() {
        assert!(is_package("k8s.io/kubernetes/cmd/kubelet"));
        assert!(!is_package("# k8s.io/kubernetes/cmd/kubelet"));
        assert!(!is_package("./main.go:3:8: package x is not in std"));
    }
}
