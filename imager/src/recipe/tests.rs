use super::*;

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const BASE: &str = r#"
product = "box"
[kernel]
x86_64 = "linux-image-cloud-amd64"
[packages]
common = ["systemd", "udev"]
aarch64 = ["u-boot-tools"]
[[persist]]
path = "/etc/kubernetes"
"#;

#[test]
fn a_recipe_is_laid_over_what_it_extends() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "base.toml", BASE);
    let path = write(
        directory.path(),
        "top.toml",
        r#"
extends = "base.toml"
version = "2"
headroom = 3
[packages]
common = ["udev", "less"]
[kernel]
x86_64 = "linux-image-amd64"
[[persist]]
path = "/etc/kubernetes"
per_epoch = true
"#,
    );
    let recipe = Recipe::load(&path).unwrap();
    assert_eq!(recipe.name, "top");
    assert_eq!(recipe.product, "box");
    assert_eq!(recipe.headroom, 3.0);
    assert_eq!(recipe.kernel[&Architecture::X86_64], "linux-image-amd64");
    assert_eq!(
        recipe.packages[&Architecture::X86_64],
        ["systemd", "udev", "less"]
    );
    assert_eq!(
        recipe.packages[&Architecture::Aarch64],
        ["systemd", "udev", "u-boot-tools", "less"]
    );
    assert_eq!(recipe.persist.len(), 1);
    assert!(recipe.persist[0].per_epoch);
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "base.toml", BASE);
    let path = write(
        directory.path(),
        "bad.toml",
        r#"extends = "base.toml"
verson = "2"
headroom = "lots"
[packages]
common = ["systemd", 7, "Capital"]
[[files]]
from = "nowhere"
to = "relative"
[[artefacts]]
name = "tool"
path = "/usr/bin/tool"
[[artefacts.sources]]
url = "https://example.org/tool"
"#,
    );
    let error = Recipe::load(&path).unwrap_err().to_string();
    for expected in [
        "has 7 mistakes",
        "bad.toml:2:1: a recipe has no field `verson`; did you mean `version`?",
        "bad.toml:3:12: `headroom` is a number",
        "bad.toml:5:22: `common` is a text",
        "bad.toml:5:25: `Capital` cannot be the name of a Debian package",
        "bad.toml:7:8: there is no",
        "bad.toml:8:6: `to` is an absolute path",
        "needs a field `sha256`",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in\n{error}");
    }
}

#[test]
fn toml_that_does_not_parse_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(
        directory.path(),
        "bad.toml",
        "product = \"box\nversion = 2\n",
    );
    let error = Recipe::load(&path).unwrap_err().to_string();
    assert!(error.contains("bad.toml:1:"), "{error}");
}

#[test]
fn recipes_that_extend_each_other_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "a.toml", "extends = \"b.toml\"\n");
    write(directory.path(), "b.toml", "extends = \"a.toml\"\n");
    let error = Recipe::load(&path).unwrap_err().to_string();
    assert!(error.contains("extends itself"), "{error}");
}

#[test]
fn the_recipes_of_the_repository_load() {
    let images = Path::new(env!("STERNPOST_SOURCE")).join("recipes/images");
    for entry in std::fs::read_dir(images).unwrap() {
        let path = entry.unwrap().path();
        let recipe = Recipe::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(recipe.warnings.is_empty(), "{:?}", recipe.warnings);
    }
}

#[test]
fn the_console_of_recovery_is_the_systems_recipe_to_say() {
    let directory = tempfile::tempdir().unwrap();
    let of_recovery = format!("kind = \"recovery\"\n{BASE}");
    write(directory.path(), "recovery.toml", &of_recovery);
    let base = format!("recovery = \"recovery.toml\"\n{BASE}");
    write(directory.path(), "base.toml", &base);
    for (text, console) in [
        ("", Console::Open),
        ("recovery.console = \"open\"\n", Console::Open),
        ("[recovery]\nconsole = \"password\"\n", Console::Password),
        ("recovery.console = \"none\"\n", Console::None),
        (
            "recovery = {recipe = \"recovery.toml\", console = \"none\"}\n",
            Console::None,
        ),
    ] {
        let text = format!("extends = \"base.toml\"\n{text}");
        let path = write(directory.path(), "top.toml", &text);
        let recovery = Recipe::load(&path).unwrap().recovery_system().unwrap();
        assert_eq!(recovery.unwrap().recovery_console, console, "{text}");
    }
}
