//! What a recipe file may say, for editors and people: the published JSON Schema.
//!
//! One struct for each table of the file, as it stands there: before what it extends is merged in,
//! so that hardly any field is required. [`super::Recipe::load`] does not read by these types, since
//! serde stops at the first mistake and forgets where it was; a test holds the two together.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// The JSON Schema (draft 2020-12) of a recipe file.
#[must_use]
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(NoNull);
    let schema = settings.into_generator().into_root_schema_for::<Document>();
    schema.to_value()
}

/// TOML has no null: an `Option` is a field that may be missing.
#[derive(Clone, Debug)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        let is_null = |value: &Value| value == "null" || value["type"] == "null";
        for list in ["type", "anyOf"] {
            let Some(Value::Array(items)) = schema.get_mut(list) else {
                continue;
            };
            items.retain(|item| !is_null(item));
            if let [only] = &items[..] {
                let only = only.clone();
                schema.remove(list);
                match only {
                    Value::Object(fields) => schema.ensure_object().extend(fields),
                    name => drop(schema.insert(list.to_owned(), name)),
                }
            }
        }
        transform_subschemas(self, schema);
    }
}

/// What an image contains. Paths of the host are relative to the file they stand in.
#[derive(Debug, JsonSchema)]
#[schemars(title = "Recipe", deny_unknown_fields)]
pub struct Document {
    /// The recipes that this one is laid over, in order: a single value replaces, lists grow,
    /// artefacts replace those of the same name, files are copied in order.
    pub extends: Option<OneOrMore>,
    /// Short name of the recipe; it names outputs. Without it: the name of the file.
    pub name: Option<String>,
    /// What the image is for. Without it: `system`.
    pub kind: Option<Kind>,
    /// The product that images of this recipe belong to; machines take no other's. This recipe or
    /// one that it extends has to name it.
    pub product: Option<String>,
    /// Version of the image, 1 to 32 visible ASCII characters; `--image-version` overrides it.
    pub version: Option<String>,
    /// When the recipe was last changed, in UTC: `2026-11-20` or `2026-11-20T12:00:00Z`. Nothing in its
    /// images is dated before that, or before the newest package.
    pub time: Option<String>,
    /// Raised when an older image must not come back, by one or to a date (20261201): a machine takes no more than 2^32
    /// above its floor, which is 0 at first. `--security-version` overrides it.
    #[schemars(range(max = 4_294_967_296_u64))]
    pub security_version: Option<u64>,
    /// Raised when the state of older versions is not read any more.
    pub state_epoch: Option<u64>,
    /// Id of the disk layout: `ab-1`.
    pub layout: Option<String>,
    /// Where packages come from.
    pub debian: Option<Debian>,
    /// The kernel's package. This recipe or one that it extends has to name one.
    pub kernel: Option<ByArchitecture>,
    /// Debian packages.
    pub packages: Option<Packages>,
    /// Programs and files that are no Debian packages.
    #[schemars(default)]
    pub artefacts: Vec<Artefact>,
    /// Files and directories of the host that are laid over the packages.
    #[schemars(default)]
    pub files: Vec<Files>,
    /// Directories that outlive an upgrade, beside /var.
    #[schemars(default)]
    pub persist: Vec<Persist>,
    /// Extra words of the kernel command line.
    #[schemars(default)]
    pub command_line: Vec<String>,
    /// Kernel modules that the initramfs loads beside its own, names with underscores.
    #[schemars(default)]
    pub initramfs_modules: Vec<String>,
    /// Absolute paths that are left out of the root; `*` stands for a part of a name.
    #[schemars(default, inner(regex(pattern = "^/")))]
    pub exclude: Vec<String>,
    /// How many times the first image a slot holds. Without it: 2.5.
    #[schemars(range(min = 1, max = 16))]
    pub headroom: Option<f64>,
    /// How the root is compressed: `none`, or `lz4`, `lz4hc`, `zstd` or `lzma` with a level after a
    /// comma. Without it: `none`, which makes the smallest upgrades.
    pub compression: Option<String>,
    /// The recovery system: its recipe, a file, or a table.
    pub recovery: Option<Recovery>,
    /// The default profile, a file; `--profile` overrides it.
    pub profile: Option<String>,
    /// The Kubernetes distribution in the image.
    pub kubernetes: Option<Kubernetes>,
    /// The VM runtimes in the image.
    #[schemars(default)]
    pub vm: Vec<String>,
}

/// One, or a list.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum OneOrMore {
    /// One file.
    One(String),
    /// Several, each laid over those before it.
    More(Vec<String>),
}

/// The recovery system.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Recovery {
    /// Its recipe, a file.
    Recipe(String),
    /// Its recipe, and more.
    Table(RecoveryTable),
}

/// The recovery system.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RecoveryTable {
    /// Its recipe, a file.
    pub recipe: Option<String>,
    /// Who gets in at its console, screen and serial line. Without it: `open`.
    pub console: Option<Console>,
}

/// Who gets in at the console of the recovery system.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Console {
    /// Whoever stands there: root is logged in.
    Open,
    /// Whom the profile gives a password, by that.
    Password,
    /// Nobody: nothing asks for a name there, and nothing gives a shell.
    None,
}

/// What an image is for.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Kind {
    /// Runs from slot A or B.
    System,
    /// Runs from the recovery slot, wholly in memory.
    Recovery,
}

/// Where packages come from.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Debian {
    /// The suite. Without it: `trixie`.
    pub suite: Option<String>,
    /// The mirror. Without it: Debian's own, with updates and security updates.
    pub mirror: Option<String>,
    /// Components beside `main`, such as `non-free-firmware`.
    #[schemars(default)]
    pub components: Vec<String>,
}

/// One text for each architecture.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ByArchitecture {
    /// On x86_64.
    pub x86_64: Option<String>,
    /// On ARM64.
    pub aarch64: Option<String>,
}

/// Names of Debian packages; what they depend on comes along, what they recommend does not.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Packages {
    /// On either architecture.
    #[schemars(default)]
    pub common: Vec<String>,
    /// On x86_64 only.
    #[schemars(default)]
    pub x86_64: Vec<String>,
    /// On ARM64 only.
    #[schemars(default)]
    pub aarch64: Vec<String>,
    /// Needed to configure the others and not in the image: their files are left out.
    #[schemars(default)]
    pub discard: Vec<String>,
}

/// A program or file that is no Debian package.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Artefact {
    /// Its name, for `--source NAME=FILE` and the list of packages.
    pub name: String,
    /// Absolute path in the image.
    #[schemars(regex(pattern = "^/"))]
    pub path: String,
    /// Permission bits as octal text. Without it: `0755`.
    pub mode: Option<String>,
    /// Where it comes from: tried in order, the first that has it wins. Only what has the SHA-256
    /// that stands here is used.
    #[schemars(length(min = 1))]
    pub sources: Vec<Source>,
}

/// One place where an artefact comes from.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Source {
    /// Downloaded.
    Url(Url),
    /// On the host.
    File(File),
    /// Built from Go modules.
    Go(Go),
    /// An OCI archive around a program that is built from Go modules.
    Image(Image),
}

/// A download, or a file of an archive that is downloaded.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Url {
    /// The address.
    pub url: PerArchitecture,
    /// Of what is downloaded.
    pub sha256: Sha256,
    /// Path of the file in the .tar.gz, .tar.xz or .tar.zst that is downloaded.
    pub member: Option<String>,
}

/// A file on the host. It may be missing where another source has the artefact.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct File {
    /// Its path.
    pub file: String,
    /// Of its content.
    pub sha256: Sha256,
}

/// A program that is built from Go modules.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Go {
    /// How to build it.
    pub go: Program,
}

/// An OCI archive around a program that is built from Go modules.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Image {
    /// What it holds.
    pub image: OciImage,
}

/// A text for both architectures, in which `{arch}` (x86_64, aarch64) and `{debian}` (amd64, arm64)
/// stand for their names, or one for each.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum PerArchitecture {
    /// The same for both, but for their names.
    Both(String),
    /// One for each.
    Each(ByArchitecture),
}

/// A SHA-256 as 64 lower-case hexadecimal digits: the same for both architectures, or one for each.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Sha256 {
    /// The same for both.
    Both(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] String),
    /// One for each.
    Each(ByArchitecture),
}

/// How a program is built from Go modules: without C, paths and version control data, so that the
/// same folder gives the same bytes on every host.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Program {
    /// A folder with go.mod, which names the toolchain, and go.sum.
    pub modules: String,
    /// Import path of the command.
    pub package: String,
    /// Words for -ldflags beside `-s -w`.
    #[schemars(default)]
    pub ldflags: Vec<String>,
    /// Words for -tags.
    #[schemars(default)]
    pub tags: Vec<String>,
}

/// A small OCI image: one program and empty directories, under many names.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OciImage {
    /// Its only program, and its entry point: `/` and the name of the modules' folder.
    pub program: Program,
    /// References that it is imported under.
    #[schemars(default)]
    pub names: Vec<String>,
    /// Empty directories, absolute; their parents are made.
    #[schemars(default)]
    pub directories: Vec<String>,
}

/// A file, or a directory with all that is in it, copied into the root.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Files {
    /// Path on the host.
    pub from: String,
    /// Absolute path in the image.
    #[schemars(regex(pattern = "^/"))]
    pub to: String,
    /// Permission bits as octal text. Without it: `0755` for directories and what is executable,
    /// `0644` otherwise.
    pub mode: Option<String>,
}

/// A directory that outlives an upgrade.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Persist {
    /// Absolute path in the running system.
    #[schemars(regex(pattern = "^/"))]
    pub path: String,
    /// Whether each state epoch has its own, or all versions share one. Without it: shared.
    pub per_epoch: Option<bool>,
}

/// Kubernetes in the image.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Kubernetes {
    /// Its distribution, as profiles name it.
    pub distribution: String,
    /// Its version, without `v`.
    pub version: String,
}
