//! Roots made of real packages. They need the network and a tools tree (with a cold cache: some
//! minutes), so `cargo test` leaves them to `cargo test -- --include-ignored`.

use std::path::{Path, PathBuf};

use imager::arch::Architecture;
use imager::recipe::Recipe;
use imager::root::{self, BuiltRoot, Content, ImageFile, Options};
use imager::workshop::cache::{Scratch, hash_file};
use imager::workshop::{Progress, Workshop};

use crate::support::link_cache;

const EPOCH: u64 = 1_700_000_000;

fn recipe() -> Recipe {
    let images = Path::new(env!("STERNPOST_SOURCE")).join("recipes/images");
    Recipe::load(&images.join("minimal-vm.toml")).unwrap()
}

async fn build(workshop: &Workshop, architecture: Architecture) -> BuiltRoot {
    let options = Options::default();
    let files = [ImageFile {
        path: "/usr/lib/sternpost/marker".to_owned(),
        content: Content::Bytes(b"marker\n".to_vec(), 0o644),
    }];
    let prepared = root::prepare(workshop, &recipe(), architecture, &options)
        .await
        .unwrap();
    prepared.finish(workshop, &files, EPOCH).await.unwrap()
}

/// A cache that has what is downloaded, but nothing that was made of it.
fn second_cache(first: &Workshop) -> (Scratch, Workshop) {
    let scratch = first.cache().scratch().unwrap();
    let shared = ["blobs", "apt", "steps/tools", "steps/resolved"];
    link_cache(first.cache().path(), scratch.path(), &shared);
    let second = Workshop::open(Some(scratch.path()), Progress::hidden()).unwrap();
    (scratch, second)
}

async fn workshop() -> Workshop {
    let workshop = Workshop::open(None, Progress::new()).unwrap();
    workshop.tools().await.unwrap();
    workshop
}

async fn extract(workshop: &Workshop, erofs: &Path, to: &Path) {
    let tools = workshop.tools().await.unwrap();
    let mut fsck = tools.command("fsck.erofs").unwrap();
    let output = fsck
        .arg(format!("--extract={}", to.display()))
        .arg("--overwrite")
        .arg(erofs)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
#[ignore = "needs the network and a tools tree"]
async fn the_same_packages_give_the_same_bytes() {
    let first = workshop().await;
    for architecture in Architecture::ALL {
        let one = build(&first, architecture).await;
        let (_scratch, second) = second_cache(&first);
        let two = build(&second, architecture).await;
        assert_ne!(one.erofs, two.erofs);
        assert_eq!(
            hash_file(&one.erofs).unwrap(),
            hash_file(&two.erofs).unwrap(),
            "{architecture}: compare {} and {}",
            one.erofs.display(),
            two.erofs.display()
        );
    }
}

#[tokio::test]
#[ignore = "needs the network and a tools tree"]
async fn a_root_of_either_architecture_has_what_a_machine_needs() {
    let workshop = workshop().await;
    for (architecture, machine) in [(Architecture::X86_64, 62), (Architecture::Aarch64, 183)] {
        let root = build(&workshop, architecture).await;
        let scratch = workshop.cache().scratch().unwrap();
        let tree = scratch.path().join("tree");
        extract(&workshop, &root.erofs, &tree).await;
        let read = |path: &str| std::fs::read(tree.join(path)).unwrap();
        // e_machine of the ELF header.
        for program in ["usr/lib/systemd/systemd", "usr/sbin/sshd", "usr/bin/bash"] {
            assert_eq!(read(program)[18], machine, "{architecture} {program}");
        }
        let passwd = String::from_utf8(read("etc/passwd")).unwrap();
        for user in ["root:", "systemd-network:", "systemd-resolve:", "sshd:"] {
            assert!(passwd.contains(user), "{architecture}: {user} in {passwd}");
        }
        assert!(read("etc/ssl/certs/ca-certificates.crt").len() > 100_000);
        assert_eq!(read("etc/machine-id"), b"");
        assert_eq!(read("usr/lib/sternpost/marker"), b"marker\n");
        let modules = format!("usr/lib/modules/{}/modules.dep", root.kernel_version);
        assert!(!read(&modules).is_empty());
        for gone in ["usr/bin/dpkg", "usr/bin/perl", "usr/bin/bootctl", "var/lib"] {
            assert!(!tree.join(gone).exists(), "{architecture}: {gone}");
        }
        let size = root.erofs.metadata().unwrap().len();
        assert_eq!(size % 4096, 0);
    }
}

#[tokio::test]
#[ignore = "needs a tools tree"]
async fn a_tool_runs_as_any_program_would() {
    let workshop = workshop().await;
    let tools = workshop.tools().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("seen"), "seen").unwrap();
    let mut shell = tools.command_in(directory.path(), "sh").unwrap();
    let output = shell
        .args([
            "-c",
            "cat seen; pwd; . /etc/os-release; echo $VERSION_CODENAME $WORD; exit 3",
        ])
        .env("WORD", "word")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let place: PathBuf = directory.path().canonicalize().unwrap();
    assert_eq!(said, format!("seen{}\ntrixie word\n", place.display()));
    assert_eq!(output.status.code(), Some(3));
    // The child is the tool, not something around it.
    let mut sleep = tools
        .std_command("sleep")
        .unwrap()
        .arg("600")
        .spawn()
        .unwrap();
    let name = format!("/proc/{}/comm", sleep.id());
    assert_eq!(std::fs::read_to_string(name).unwrap(), "sleep\n");
    sleep.kill().unwrap();
    assert!(!sleep.wait().unwrap().success());
    // The tools cannot be changed by what they do.
    let mut touch = tools.command("touch").unwrap();
    let output = touch.arg("/usr/bin/new").output().await.unwrap();
    assert!(!output.status.success());
}
