//! What scenarios boot: keys, images and bundles, made once through `imager` and kept in the cache.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use boot_core::Architecture;

use crate::ssh::{self, Ssh};

/// The versions that the scenarios play with. All have the same recipe and differ in number and profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 1.0.0: what is on the disk.
    First,
    /// 2.0.0: what is upgraded to.
    Second,
    /// 3.0.0: never healthy, because a service of its own cannot start; given up soon.
    Unhealthy,
    /// 4.0.0: never healthy either, but given so much time that there is never a verdict.
    Undecided,
    /// 5.0.0: some seconds after the start nothing runs any more, systemd included.
    Hanging,
    /// 6.0.0: goes wrong as a file on `state` says.
    Defective,
    /// 7.0.0: the kernel waits for ever before it starts the initrd agent.
    Stuck,
    /// 8.0.0: the initrd agent ends at once.
    Ending,
}

impl Version {
    /// As the image calls itself.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Version::First => "1.0.0",
            Version::Second => "2.0.0",
            Version::Unhealthy => "3.0.0",
            Version::Undecided => "4.0.0",
            Version::Hanging => "5.0.0",
            Version::Defective => "6.0.0",
            Version::Stuck => "7.0.0",
            Version::Ending => "8.0.0",
        }
    }

    fn profile(self) -> Profile {
        match self {
            Version::First
            | Version::Second
            | Version::Unhealthy
            | Version::Stuck
            | Version::Ending => Profile::Good,
            Version::Defective => Profile::Short,
            Version::Undecided | Version::Hanging => Profile::Undecided,
        }
    }
}

#[derive(Clone, Copy)]
enum Profile {
    Good,
    Short,
    Undecided,
    Kubernetes,
}

/// What `imager build` made of a recipe.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
}

impl Image {
    /// The directory that everything is in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The raw disk image.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.raw")
    }

    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.directory.join("bundle.spb")
    }

    /// The digest of its manifest: SHA-256 of the exact bytes.
    ///
    /// # Errors
    /// There is no manifest.
    pub fn manifest_digest(&self) -> Result<boot_core::Digest> {
        Ok(boot_core::Digest::of(&self.manifest()?))
    }

    /// The exact bytes of its manifest.
    ///
    /// # Errors
    /// There is none.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        let path = self.directory.join("manifest.json");
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Builds what is asked for, each image once a run. `imager` itself rebuilds only what changed.
#[derive(Clone)]
pub struct Artefacts {
    imager: PathBuf,
    /// The workspace, for recipes.
    root: PathBuf,
    /// Where keys, profiles and images are kept.
    directory: PathBuf,
    /// Whether imager's own progress is shown, not just what is being built.
    shows_progress: bool,
    built: Arc<Mutex<HashMap<PathBuf, Image>>>,
    making: Arc<Mutex<()>>,
    saving: Arc<Mutex<()>>,
}

impl Artefacts {
    /// In `directory`, with the `imager` of `imager`, recipes from the workspace `root`. Makes keys if there are none.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn open(imager: PathBuf, root: PathBuf, directory: PathBuf) -> Result<Artefacts> {
        let artefacts = Artefacts {
            imager,
            root,
            directory,
            shows_progress: false,
            built: Arc::default(),
            making: Arc::default(),
            saving: Arc::default(),
        };
        std::fs::create_dir_all(&artefacts.directory)
            .with_context(|| format!("cannot make {}", artefacts.directory.display()))?;
        artefacts.make_ssh_key()?;
        Ok(artefacts)
    }

    /// Shows imager's own progress.
    #[must_use]
    pub fn with_progress(self) -> Artefacts {
        Artefacts {
            shows_progress: true,
            ..self
        }
    }

    /// The `imager` program.
    #[must_use]
    pub fn imager(&self) -> &Path {
        &self.imager
    }

    /// The keys of the product that the recipe in `file` is for, made if there are none.
    ///
    /// # Errors
    /// The recipe cannot be read, or keys cannot be made.
    pub fn keys_for(&self, file: &Path) -> Result<PathBuf> {
        let product = product(file)?;
        let keys = self.directory.join("keys").join(&product);
        self.make_keys(&keys, &product)?;
        Ok(keys)
    }

    /// The keys of the scenarios' own recipe.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn keys(&self) -> Result<PathBuf> {
        self.keys_for(&self.recipe_file("minimal-vm", Version::First))
    }

    /// Other keys for the same product, which no image trusts.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn other_keys(&self) -> Result<PathBuf> {
        let product = product(&self.recipe_file("minimal-vm", Version::First))?;
        let keys = self.directory.join("other-keys");
        self.make_keys(&keys, &product)?;
        Ok(keys)
    }

    /// Where saved machines are, a directory each.
    #[must_use]
    pub fn saved(&self) -> PathBuf {
        self.directory.join("saved")
    }

    /// Held while one is made or copied.
    pub(crate) fn saving(&self) -> Result<MutexGuard<'_, ()>> {
        self.saving
            .lock()
            .map_err(|_| anyhow!("another scenario failed while it saved a machine"))
    }

    /// Where programs are built that no image has.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.directory.join("programs")
    }

    /// Where images are, a directory each.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// The private key that logs into every machine.
    #[must_use]
    pub fn ssh_key(&self) -> PathBuf {
        self.directory.join("ssh-key")
    }

    /// A way into the machine whose port 22 is `port` here.
    #[must_use]
    pub fn ssh(&self, port: u16) -> Ssh {
        Ssh::new(&self.ssh_key(), port)
    }

    /// Where the recipe of `version` is: a variant of `recipe` where the image has to misbehave by itself.
    fn recipe_file(&self, recipe: &str, version: Version) -> PathBuf {
        let generic = if recipe.ends_with("-vm") {
            ""
        } else {
            "-generic"
        };
        let ours = |name| format!("qemu-tests/recipes/{name}{generic}.toml");
        self.root.join(match version {
            Version::Hanging => ours("hanging"),
            Version::Defective => ours("defective"),
            Version::Stuck => ours("stuck"),
            Version::Ending => ours("ending"),
            Version::Unhealthy => format!("recipes/demo/{recipe}.toml"),
            _ => format!("recipes/images/{recipe}.toml"),
        })
    }

    /// The image of any recipe in recipes/images.
    ///
    /// # Errors
    /// `imager build` fails.
    pub fn recipe(
        &self,
        recipe: &str,
        architecture: Architecture,
        version: Version,
        sector_size: u32,
    ) -> Result<Image> {
        let name = format!(
            "{recipe}-{}-{}-{sector_size}",
            architecture.name(),
            version.number()
        );
        let out = self.images().join(name);
        // Held while building: two scenarios that want the same image must not build it twice, and two builds at once
        // would only share the processors.
        let mut built = self
            .built
            .lock()
            .map_err(|_| anyhow!("another build failed"))?;
        if let Some(image) = built.get(&out) {
            return Ok(image.clone());
        }
        let profile = self.write_profile(if recipe.starts_with("kubeadm") {
            Profile::Kubernetes
        } else {
            version.profile()
        })?;
        let mut command = Command::new(&self.imager);
        let file = self.recipe_file(recipe, version);
        let keys = self.keys_for(&file)?;
        command.arg("build").arg(&file);
        command.args([
            "--arch",
            architecture.name(),
            "--image-version",
            version.number(),
        ]);
        command.arg("--sector-size").arg(sector_size.to_string());
        command
            .arg("--profile")
            .arg(profile)
            .arg("--keys")
            .arg(keys)
            .arg("--out")
            .arg(&out);
        if self.shows_progress {
            run_shown(command)?;
        } else {
            let began = Instant::now();
            eprintln!("building {} ...", out.display());
            run(command)?;
            eprintln!("built {} in {} s", out.display(), began.elapsed().as_secs());
        }
        let image = Image {
            directory: out.clone(),
        };
        built.insert(out, image.clone());
        Ok(image)
    }

    /// Signs a loader of the scenarios' own recipe, as an OEM does that has changed it.
    ///
    /// # Errors
    /// `imager loader` fails.
    pub fn sign_loader(&self, program: &Path, version: &str, bundle: &Path) -> Result<()> {
        let mut command = Command::new(&self.imager);
        command.arg("loader").arg(program);
        command.args(["--image-version", version]);
        command.arg("--keys").arg(self.keys()?);
        command.arg("--out").arg(bundle);
        run(command)
    }

    fn make_keys(&self, directory: &Path, product: &str) -> Result<()> {
        let _making = self
            .making
            .lock()
            .map_err(|_| anyhow!("another scenario failed while making keys"))?;
        if directory.join("keyring.json").exists() {
            return Ok(());
        }
        let mut command = Command::new(&self.imager);
        command
            .args(["keygen", "--product", product])
            .arg(directory);
        run(command)
    }

    fn make_ssh_key(&self) -> Result<()> {
        if self.ssh_key().exists() {
            return Ok(());
        }
        let mut command = Command::new("ssh-keygen");
        command
            .args([
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "sternpost-tests",
                "-f",
            ])
            .arg(self.ssh_key());
        run(command)
    }

    fn write_profile(&self, profile: Profile) -> Result<PathBuf> {
        let key = std::fs::read_to_string(self.ssh_key().with_extension("pub"))
            .context("cannot read the SSH key")?;
        let (name, health) = match profile {
            Profile::Good => ("good", "health:\n  deadline: 5m\n"),
            Profile::Short => ("short", "health:\n  deadline: 90s\n  settle: 60s\n"),
            Profile::Kubernetes => (
                "kubernetes",
                "kubernetes:\n  distribution: kubeadm\n  role: init\nhealth:\n  deadline: 20m\n",
            ),
            Profile::Undecided => (
                "undecided",
                "health:\n  deadline: 2h\n  units: [never-there.service]\n",
            ),
        };
        let text = format!(
            "version: 1\nhostname: tested\nusers:\n  - name: {}\n    admin: true\n    ssh_keys:\n      - {}\n{health}",
            ssh::USER,
            key.trim()
        );
        let path = self.directory.join(format!("profile-{name}.yaml"));
        // Written only when it changes, so that nothing is built again for its date.
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }
}

/// Runs a program, whose output is shown only if it fails.
fn run(mut command: Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Runs a program whose messages go to this one's.
fn run_shown(mut command: Command) -> Result<()> {
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

/// The product that a recipe is for: its own word, else that of what it extends.
fn product(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the recipe {}", file.display()))?;
    let recipe: toml::Table = text
        .parse()
        .with_context(|| format!("{} is not TOML", file.display()))?;
    if let Some(product) = recipe.get("product").and_then(toml::Value::as_str) {
        return Ok(product.to_owned());
    }
    let extends = match recipe.get("extends") {
        Some(toml::Value::String(one)) => vec![one.clone()],
        Some(toml::Value::Array(several)) => several
            .iter()
            .filter_map(|it| Some(it.as_str()?.to_owned()))
            .collect(),
        _ => Vec::new(),
    };
    // What comes later overrides.
    extends
        .iter()
        .rev()
        .find_map(|other| product(&file.with_file_name(other)).ok())
        .ok_or_else(|| anyhow!("{} names no product", file.display()))
}
