//! A small image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boot_core::manifest::{Build, CHUNK_SIZE, Contents, FORMAT, Kind, Manifest, Uki};
use boot_core::test_support::program;
use boot_core::trust::Trust;
use boot_core::{Architecture, Digest, SecurityVersion};
use imager::boot::loader;
use imager::output::disk::{Parts, RootImage, SlotImage};
use imager::output::frames::Frames;
use imager::output::{bundle, disk, verity};
use imager::release::authority::{Authority, KeyCount, make_keys};
use imager::workshop::Progress;
use imager::workshop::cache::Cache;

/// Everything on disk that one image is made of.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    pub(crate) system: SlotImage,
    pub(crate) recovery: SlotImage,
    pub(crate) loader: SlotImage,
    leaves: Vec<u8>,
}

const ONE: KeyCount = KeyCount {
    keys: 1,
    threshold: 1,
};

impl Fixture {
    /// Makes keys and an image of product `edge`.
    pub(crate) fn new() -> Self {
        Self::with_stub(b"")
    }

    /// The same; the stubs of its UKIs hold these strings.
    pub(crate) fn with_stub(strings: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        make_keys(&path("keys"), "edge", ONE, ONE).unwrap();
        let authority = Authority::open(&path("keys"), &[], &[]).unwrap();
        let uki = |content: &[u8]| program(Architecture::X86_64, &[strings, content].concat());
        fs::write(path("uki"), uki(&noise(1, 5_000_000))).unwrap();
        // A root with a chunk that is all zero in its middle.
        let mut root = noise(2, 3 * CHUNK_SIZE as usize + 8192);
        root[CHUNK_SIZE as usize..2 * CHUNK_SIZE as usize].fill(0);
        fs::write(path("root"), root).unwrap();
        fs::write(path("recovery.uki"), uki(&noise(3, 100_000))).unwrap();
        let trust = authority.trust(Architecture::X86_64, "ab-1");
        let section = trust.to_section().unwrap();
        fs::write(path("loader"), program(Architecture::X86_64, &section)).unwrap();
        fs::write(path("state"), noise(5, 1 << 20)).unwrap();
        let hashed = verity::hash_file(&path("root"), verity::salt("edge")).unwrap();
        fs::write(path("tree"), &hashed.tree).unwrap();
        let slot = |kind, uki: PathBuf, root: Option<RootImage>| {
            let manifest = Manifest {
                format: FORMAT,
                product: "edge".to_owned(),
                kind,
                layout: "ab-1".to_owned(),
                version: "1.0".parse().unwrap(),
                security_version: SecurityVersion(1),
                state_epoch: 1,
                architecture: Architecture::X86_64,
                uki: Some(describe(&uki)),
                root: root.as_ref().map(|_| hashed.root.clone()),
                events: Vec::new(),
                contents: Contents::default(),
                build: Build::default(),
                expires: None,
            };
            SlotImage {
                signed: authority.sign(&manifest).unwrap(),
                manifest,
                chain: authority.chain.clone(),
                uki,
                root,
            }
        };
        let root = RootImage {
            data: path("root"),
            tree: path("tree"),
        };
        let system = slot(Kind::System, path("uki"), Some(root));
        let recovery = slot(Kind::Recovery, path("recovery.uki"), None);
        let release = loader::Release {
            version: "1.0".into(),
            security_version: 1,
            time: 0,
            recipe: "test".into(),
            expires: None,
        };
        let loader = loader::sign(&path("loader"), &authority, &release).unwrap();
        Self {
            system,
            recovery,
            loader,
            leaves: hashed.leaves,
            directory,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What its loader trusts.
    pub(crate) fn trust(&self) -> Trust {
        let authority = Authority::open(&self.path("keys"), &[], &[]).unwrap();
        authority.trust(Architecture::X86_64, "ab-1")
    }

    pub(crate) fn disk(&self, name: &str, sector_size: u32) -> PathBuf {
        let out = self.path(name);
        let parts = Parts {
            system: &self.system,
            recovery: Some(&self.recovery),
            loader: &self.loader,
            state: &self.path("state"),
            headroom: 2.5,
            sector_size,
        };
        disk::write(&parts, &out).unwrap();
        out
    }

    pub(crate) fn bundle(&self, name: &str) -> PathBuf {
        self.bundle_of(&self.system, &self.leaves, name)
    }

    pub(crate) fn loader_bundle(&self, name: &str) -> PathBuf {
        self.bundle_of(&self.loader, &[], name)
    }

    fn bundle_of(&self, image: &SlotImage, leaves: &[u8], name: &str) -> PathBuf {
        let out = self.path(name);
        let cache = Cache::open(Some(&self.path("cache"))).unwrap();
        let frames = Frames::new(&cache, 1).unwrap();
        let step = Progress::hidden().start("bundle");
        bundle::write(image, leaves, &frames, &out, &step).unwrap();
        out
    }
}

/// Gives the cache `to` some of what `from` has, as links: files of a cache are never changed.
pub(crate) fn link_cache(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        let to = to.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let mut copy = Command::new("cp");
        let status = copy.arg("-al").arg(from.join(name)).arg(&to).status();
        assert!(status.unwrap().success());
    }
}

fn describe(path: &Path) -> Uki {
    let bytes = fs::read(path).unwrap();
    Uki {
        size: bytes.len() as u64,
        digest: Digest::of(&bytes),
        chunk_size: CHUNK_SIZE,
        chunks: bytes.chunks(CHUNK_SIZE as usize).map(Digest::of).collect(),
    }
}

/// Bytes that do not compress and are the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
