//! A whole image, built twice as differently as one host can: with an empty cache of steps and of
//! programs, in other directories, and, for root, as another user, who configures packages in a user
//! namespace. Minutes of work, so `cargo test` leaves it to `cargo test -- --include-ignored`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imager::workshop::{Progress, Workshop};

use crate::support::link_cache;

/// Runs "$@" as the user `daemon`, who cannot see into root's home: what he needs of it appears in
/// his own directory, in a mount namespace. The user namespace of mmdebstrap needs ids of his.
const AS_DAEMON: &str = r#"
    cache=$1; rustup=$2; shift 2
    find . "$cache" -type d -exec chown daemon:daemon {} +
    chown -R daemon:daemon cargo ../keys
    mount --bind "$cache" cache
    for toolchain in "$rustup"/toolchains/*; do
        inside="rustup/toolchains/$(basename "$toolchain")"
        mkdir -p "$inside"
        mount --bind "$(realpath "$toolchain")" "$inside"
    done
    echo "daemon:1000000:65536" > ids
    mount --bind ids /etc/subuid
    mount --bind ids /etc/subgid
    exec setpriv --reuid=daemon --regid=daemon --clear-groups "$@"
"#;

#[test]
#[ignore = "needs the network and a tools tree; builds an image twice"]
fn two_builds_of_an_image_give_the_same_bytes() {
    let workshop = Workshop::open(None, Progress::hidden()).unwrap();
    let scratch = workshop.cache().scratch().unwrap();
    let work = tempfile::tempdir().unwrap();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| work.path().join(name);
    // Copies: somebody may be at work on the sources.
    copy_sources(&path("first/sources"));
    copy_sources(&path("second/sources"));
    fs::copy(env!("CARGO_BIN_EXE_imager"), path("imager")).unwrap();
    let keygen = ["keygen", "--product", "sternpost", "keys"];
    let mut imager = Command::new(path("imager"));
    run(imager.args(keygen).current_dir(work.path()));

    let mut first = Command::new(path("imager"));
    first.env("STERNPOST_SOURCE", path("first/sources"));
    first.args(["build", "recipes/images/minimal-vm.toml"]);
    first.args(["--keys", "../../keys", "--out", "../out"]);
    run(first.current_dir(path("first/sources")));

    // What was downloaded is checked wherever it is used, and of the tools there is only one tree.
    let shared = ["blobs", "steps/tools"];
    link_cache(workshop.cache().path(), scratch.path(), &shared);
    let mut second = in_other_circumstances(&path("second"), scratch.path());
    second.env("STERNPOST_SOURCE", path("second/sources"));
    second.arg(path("imager"));
    second.args(["build", "sources/recipes/images/minimal-vm.toml"]);
    second.args(["--keys", "../keys", "--out", "out"]);
    second.args(["--lock", "../first/out/minimal-vm.lock"]);
    run(second.current_dir(path("second")));

    let names = files(&path("first/out"));
    assert_eq!(names, files(&path("second/out")));
    assert!(names.len() >= 8, "{names:?}");
    let differences: Vec<String> = names
        .iter()
        .filter_map(|name| {
            let [one, two] = ["first/out", "second/out"].map(|out| path(out).join(name));
            let offset = first_difference(&one, &two)?;
            Some(format!("{} differs at byte {offset}", name.display()))
        })
        .collect();
    if !differences.is_empty() {
        panic!("{}; see {}", differences.join(", "), work.keep().display());
    }
}

/// A command whose arguments are run with `cache`: by the same user or, if that can be, by `daemon`.
fn in_other_circumstances(directory: &Path, cache: &Path) -> Command {
    let user_namespace = Command::new("unshare").args(["--user", "true"]).status();
    let reason = if !nix::unistd::geteuid().is_root() {
        "only root can become somebody else"
    } else if !user_namespace.is_ok_and(|status| status.success()) {
        "there are no user namespaces"
    } else {
        return as_daemon(directory, cache);
    };
    println!("the second build is the same user's: {reason}");
    let mut command = Command::new("env");
    command.env("STERNPOST_CACHE", cache);
    command
}

fn as_daemon(directory: &Path, cache: &Path) -> Command {
    let home = |variable: &str, default: &str| match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").unwrap()).join(default),
    };
    for name in ["cache", "cargo", "rustup"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    // Crates are not always readable for everybody, and cargo locks where they are.
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(home("CARGO_HOME", ".cargo").join("."));
    run(copy.arg(directory.join("cargo")));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", AS_DAEMON, "sh"]);
    command.arg(cache).arg(home("RUSTUP_HOME", ".rustup"));
    command
        .env("HOME", directory)
        .env("CARGO_HOME", directory.join("cargo"))
        .env("RUSTUP_HOME", directory.join("rustup"))
        .env("STERNPOST_CACHE", directory.join("cache"));
    command
}

/// The sources without what git and cargo keep among them.
fn copy_sources(to: &Path) {
    fs::create_dir_all(to).unwrap();
    let from = Path::new(env!("STERNPOST_SOURCE"));
    let mut copy = Command::new("cp");
    copy.arg("-a");
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with(".git") && !path.ends_with("target") {
            copy.arg(path);
        }
    }
    run(copy.arg(to));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?} ended with {status}");
}

fn files(directory: &Path) -> BTreeSet<std::ffi::OsString> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Where two files begin to differ; none if they do not.
fn first_difference(one: &Path, two: &Path) -> Option<u64> {
    const PIECE: u64 = 1 << 20;
    let [mut one, mut two] = [one, two].map(|path| File::open(path).unwrap());
    let mut offset = 0;
    loop {
        let [a, b] = [&mut one, &mut two].map(|file| {
            let mut piece = Vec::new();
            file.take(PIECE).read_to_end(&mut piece).unwrap();
            piece
        });
        if a != b {
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            return Some(offset + same as u64);
        }
        if a.is_empty() {
            return None;
        }
        offset += PIECE;
    }
}

#[test]
fn the_first_difference_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut bytes = vec![0; (1 << 20) + 5];
    let one = file("one", &bytes);
    assert_eq!(first_difference(&one, &file("two", &bytes)), None);
    let shorter = file("shorter", &bytes[..7]);
    assert_eq!(first_difference(&one, &shorter), Some(7));
    bytes[(1 << 20) + 3] = 1;
    assert_eq!(
        first_difference(&one, &file("two", &bytes)),
        Some((1 << 20) + 3)
    );
}
