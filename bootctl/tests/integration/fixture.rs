//! A directory that stands in for a machine, images for it, and bundles of them.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use block_file::{Access, BlockFile};
use boot_core::boot_report::{BootReport, TableEntry};
use boot_core::bundle::{FrameTable, Header};
use boot_core::dsse::Envelope;
use boot_core::keyring::{KeySet, Keyring};
use boot_core::manifest::{self, CHUNK_SIZE, Contents, Kind, Manifest, Root, Uki};
use boot_core::public_key::KeyFormat;
use boot_core::record::{Record, SlotContents};
use boot_core::slot_header::{self, SlotHeader, UKI_OFFSET};
use boot_core::store::BootState;
use boot_core::trust::Trust;
use boot_core::types::Salt;
use boot_core::verity::{BlockHasher, TreeBuilder};
use boot_core::{
    Architecture, Device, Digest, KeyringSerial, Nonce, PublicKey, SecurityVersion, Slot, Target,
    layout, transition,
};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;

pub(crate) const BOOT_SIZE: u64 = 4 << 20;
pub(crate) const ROOT_SIZE: u64 = 16 << 20;
pub(crate) const ESP_SIZE: u64 = 64 << 20;
pub(crate) const ESP_A: &str = "0f0f0f0f-0000-4000-8000-00000000000a";
pub(crate) const ESP_B: &str = "0f0f0f0f-0000-4000-8000-00000000000b";
pub(crate) const ROOT_KEY: u8 = 1;
pub(crate) const SIGNING_KEY: u8 = 2;

pub(crate) fn public(seed: u8) -> PublicKey {
    PublicKey::Ed25519(
        SigningKey::from_bytes(&[seed; 32])
            .verifying_key()
            .to_bytes(),
    )
}

fn sign(envelope: &mut Envelope, seed: u8) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    envelope
        .sign(&public(seed), |bytes| {
            Ok::<_, ()>(key.sign(bytes).to_bytes())
        })
        .unwrap();
}

pub(crate) fn trust() -> Trust {
    Trust {
        format: 1,
        product: "demo".into(),
        architecture: Architecture::X86_64,
        layout: "ab-1".into(),
        root: KeySet::new(KeyFormat::V1, 1, vec![public(ROOT_KEY)]).unwrap(),
        former_root: None,
    }
}

fn chain(serial: u64) -> Vec<u8> {
    let keyring = Keyring {
        format: 1,
        serial: KeyringSerial(serial),
        product: "demo".into(),
        root: KeySet::new(KeyFormat::V1, 1, vec![public(ROOT_KEY)]).unwrap(),
        signing: KeySet::new(KeyFormat::V1, 1, vec![public(SIGNING_KEY)]).unwrap(),
        profile: None,
    };
    let mut link = keyring.to_envelope();
    sign(&mut link, ROOT_KEY);
    Envelope::array_to_json(&[link])
}

/// Bytes that do not compress, different for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// An image, and what is made of it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) uki: Vec<u8>,
    pub(crate) root: Vec<u8>,
    pub(crate) signing_key: u8,
    /// Of its keyring.
    pub(crate) serial: u64,
}

impl Image {
    /// 100 KiB of UKI; a root of three chunks, the second all zero, mostly the same in every version.
    pub(crate) fn new(version: &str) -> Self {
        let number = version.bytes().map(u64::from).sum::<u64>();
        let mut root = noise(7, 4 << 20);
        root.resize(8 << 20, 0);
        root.extend(noise(number, 64 * 1024));
        let mut image = Self {
            manifest: Manifest {
                format: 1,
                product: "demo".into(),
                kind: Kind::System,
                layout: "ab-1".into(),
                version: version.parse().unwrap(),
                security_version: SecurityVersion(1),
                state_epoch: 1,
                architecture: Architecture::X86_64,
                uki: None,
                root: None,
                events: Vec::new(),
                contents: Contents::default(),
                build: manifest::Build::default(),
                expires: None,
            },
            uki: noise(number + 1000, 100 * 1024 + 5),
            root,
            signing_key: SIGNING_KEY,
            serial: 2,
        };
        image.seal();
        image
    }

    /// A UKI of 5000 bytes, a root of three blocks.
    pub(crate) fn small(version: &str) -> Self {
        let mut image = Self::new(version);
        let seed = version.bytes().map(u64::from).sum();
        image.uki = noise(seed, 5000);
        image.root = noise(seed + 1, 3 * 4096);
        image.seal();
        image
    }

    /// A recovery system.
    pub(crate) fn recovery(version: &str) -> Self {
        Self::small(version).of_kind(Kind::Recovery)
    }

    /// Another kind of the same, with the parts that it has.
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.manifest.kind = kind;
        if !kind.has_uki() {
            self.uki.clear();
        }
        if !kind.has_root() {
            self.root.clear();
        }
        self.seal();
        self
    }

    /// What the record says of a slot that holds it.
    pub(crate) fn contents(&self) -> SlotContents {
        let serial = KeyringSerial(self.serial);
        self.manifest.slot_contents(self.digest(), serial)
    }

    /// Writes a boot partition.
    pub(crate) fn write_boot<D: Device>(&self, target: Target, device: &mut D) {
        let (envelope, keyring) = (self.envelope(), chain(self.serial));
        let size = self.uki.len();
        let header = SlotHeader::new(
            target,
            envelope.len(),
            keyring.len(),
            size as u64,
            self.digest(),
        )
        .unwrap();
        let mut uki = self.uki.clone();
        uki.resize(size.next_multiple_of(4096), 0);
        slot_header::write_parts(device, &header, &envelope, &keyring).unwrap();
        device.write_at(UKI_OFFSET, &uki).unwrap();
        slot_header::write_header(device, &header).unwrap();
    }

    /// A loader.
    pub(crate) fn loader(version: &str, program: Vec<u8>) -> Self {
        let mut image = Self::new(version);
        image.uki = program;
        image.of_kind(Kind::Loader)
    }

    /// Has the manifest say what UKI and root are.
    pub(crate) fn seal(&mut self) {
        let kind = self.manifest.kind;
        let chunks = self.uki.chunks(CHUNK_SIZE as usize);
        self.manifest.uki = kind.has_uki().then(|| Uki {
            size: self.uki.len() as u64,
            digest: Digest::of(&self.uki),
            chunk_size: CHUNK_SIZE,
            chunks: chunks.map(Digest::of).collect(),
        });
        if !kind.has_root() {
            self.manifest.root = None;
            return;
        }
        let salt = Salt([3; 32]);
        let leaves = self.leaves();
        let mut builder = TreeBuilder::new(&salt);
        builder.push(&leaves);
        let tree = builder.finish().unwrap();
        self.manifest.root = Some(Root {
            hash: tree.root,
            salt,
            data_size: self.root.len() as u64,
            size: (self.root.len() + tree.to_bytes(&leaves).len()) as u64,
            chunk_size: CHUNK_SIZE,
        });
    }

    fn leaves(&self) -> Vec<u8> {
        let mut leaves = Vec::new();
        BlockHasher::new(&Salt([3; 32])).append_leaves(&self.root, &mut leaves);
        leaves
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest.to_payload())
    }

    fn envelope(&self) -> Vec<u8> {
        let mut envelope = Envelope::new(manifest::PAYLOAD_TYPE, self.manifest.to_payload());
        sign(&mut envelope, self.signing_key);
        envelope.to_json()
    }

    /// The bundle.
    pub(crate) fn bundle(&self) -> Vec<u8> {
        let (envelope, keyring, leaves) = (self.envelope(), chain(self.serial), self.leaves());
        let compress = |chunk: &[u8]| {
            if chunk.iter().all(|b| *b == 0) {
                Vec::new()
            } else {
                zstd::bulk::compress(chunk, 1).unwrap()
            }
        };
        let uki: Vec<_> = self.uki.chunks(CHUNK_SIZE as usize).map(compress).collect();
        let root: Vec<_> = self
            .root
            .chunks(CHUNK_SIZE as usize)
            .map(compress)
            .collect();
        let header = Header {
            flags: 0,
            envelope_length: envelope.len() as u32,
            keyring_length: keyring.len() as u32,
            uki_frames: uki.len() as u32,
            root_frames: root.len() as u32,
            leaves_length: leaves.len() as u64,
        };
        let lengths = uki.iter().chain(&root).map(|f| f.len() as u32).collect();
        let mut bytes = header.encode().to_vec();
        bytes.extend(envelope);
        bytes.extend(keyring);
        bytes.extend(FrameTable::new(lengths).unwrap().encode());
        bytes.extend(leaves);
        bytes.extend(uki.into_iter().chain(root).flatten());
        bytes
    }

    /// Root and tree, as they lie in a slot.
    pub(crate) fn root_partition(&self) -> Vec<u8> {
        let leaves = self.leaves();
        let mut builder = TreeBuilder::new(&Salt([3; 32]));
        builder.push(&leaves);
        let mut bytes = self.root.clone();
        bytes.extend(builder.finish().unwrap().to_bytes(&leaves));
        bytes
    }

    fn write(&self, machine: &Fixture, slot: Slot) {
        let mut boot = BlockFile::open(&machine.path(slot.label_boot()), Access::Alone).unwrap();
        self.write_boot(slot.into(), &mut boot);
        machine
            .partition(slot.label_root())
            .write_all_at(&self.root_partition(), 0)
            .unwrap();
    }
}

/// The stand-in: version 1.0 runs from slot A and is good, slot B is empty.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Self { dir };
        let root = fixture.root();
        for made in [
            "dev",
            "run/sternpost",
            "usr/lib/sternpost",
            "state/sternpost",
            "etc",
        ] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        for (label, size) in [
            ("esp-a", 1 << 20),
            ("esp-b", 1 << 20),
            ("boot-state", 4 << 20),
            ("boot-a", BOOT_SIZE),
            ("boot-b", BOOT_SIZE),
            ("boot-r", BOOT_SIZE),
            ("root-a", ROOT_SIZE),
            ("root-b", ROOT_SIZE),
        ] {
            let file = fs::File::create(root.join("dev").join(label)).unwrap();
            file.set_len(size).unwrap();
        }
        fs::write(root.join("usr/lib/sternpost/trust.json"), trust().to_json()).unwrap();
        fs::write(
            root.join("usr/lib/sternpost/image.json"),
            r#"{"product":"demo","version":"1.0","architecture":"x86_64","security_version":1,
                "state_epoch":1,"build_time":1790000000,"kubernetes":null,"vm":["none"],"kernel":"6.12"}"#,
        )
        .unwrap();
        fs::write(
            root.join("usr/lib/sternpost/profile.yaml"),
            "version: 1\nhostname: edge-1\n",
        )
        .unwrap();
        fs::write(
            root.join("etc/machine-id"),
            "0123456789abcdef0123456789abcdef\n",
        )
        .unwrap();
        let running = Image::new("1.0");
        running.write(&fixture, Slot::A);
        fixture.boots(Target::A, &running);
        fixture.change(|_| {
            let contents = running.contents();
            let record = transition::first_image(contents);
            transition::mark_good(&record, Slot::A, &running.digest(), Target::A).unwrap()
        });
        fixture
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, label: &str) -> PathBuf {
        self.root().join("dev").join(label)
    }

    pub(crate) fn partition(&self, label: &str) -> fs::File {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(label))
            .unwrap()
    }

    /// The agent did not find its disk.
    pub(crate) fn loses_its_disk(&self) {
        let path = self.root().join("run/sternpost/boot.json");
        let mut boot: BootReport = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        boot.disk = None;
        boot.partitions.clear();
        boot.table.clear();
        fs::write(path, boot.to_json()).unwrap();
    }

    /// Installs version 2.0 into slot B and starts it: there it is on trial, and has just come up. The image, and its
    /// bundle.
    pub(crate) fn upgrade(&self) -> (Image, String) {
        let image = Image::new("2.0");
        let file = self.file("bundle.spb", &image.bundle());
        self.run(&["install", "--now", &file]).ok();
        self.change(|r| transition::start(r, Target::B, Nonce([5; 16])).unwrap());
        self.boots(Target::B, &image);
        (image, file)
    }

    /// What the loader and the initrd would say.
    pub(crate) fn boots(&self, target: Target, image: &Image) {
        let slot = bootctl::machine::facts::target_name(target);
        let run = self.root().join("run/sternpost");
        let mut boot = BootReport::new(target, image.digest());
        boot.disk = Some("/dev/vda".into());
        boot.partitions = layout::Label::ALL
            .into_iter()
            .filter(|label| *label != layout::Label::State)
            .map(|label| (label.label().into(), format!("/dev/{label}")))
            .collect();
        let esp = |number, guid: &str, start| TableEntry {
            number,
            guid: guid.into(),
            start,
            size: ESP_SIZE,
        };
        boot.table = [
            ("esp-a".into(), esp(1, ESP_A, 1 << 20)),
            ("esp-b".into(), esp(2, ESP_B, (1 << 20) + ESP_SIZE)),
        ]
        .into();
        fs::write(run.join("boot.json"), boot.to_json()).unwrap();
        let handover = serde_json::json!({
            "version": 1, "slot": slot, "why": "priority", "nonce": "11".repeat(16),
            "recorded": true, "disk": "x", "manifest": image.digest(), "record_versions": [1, 1],
            "loader": "0.1.0", "secure_boot": false, "watchdog_seconds": 60, "rejected": [],
            "times": {"start_us": 1, "exec_us": 2},
        });
        fs::write(run.join("handover.json"), handover.to_string()).unwrap();
    }

    pub(crate) fn store(&self) -> BootState<BlockFile> {
        BootState::new(BlockFile::open(&self.path("boot-state"), Access::Alone).unwrap())
    }

    pub(crate) fn record(&self) -> Record {
        self.store().load().record.unwrap()
    }

    /// Commits what `change` makes of the record.
    pub(crate) fn change(&self, change: impl FnOnce(&Record) -> Record) {
        let mut store = self.store();
        let record = store.load().record.unwrap_or_else(Record::empty);
        store.commit(&change(&record)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootctl"));
        command.arg("--root").arg(self.root());
        command.args(["--hurry", "10"]).args(arguments);
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy).env_remove(proxy.to_lowercase());
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().unwrap())
    }

    /// Writes a file into the machine and gives its name.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.root().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Slot B holds exactly `image`, staged or activated.
    pub(crate) fn assert_holds(&self, image: &Image, status: &str) {
        let record = self.record();
        assert_eq!(record.b.digest, image.digest());
        assert_eq!(record.b.status().name(), status);
        let root = fs::read(self.path("root-b")).unwrap();
        let wanted = image.root_partition();
        assert!(
            root[..wanted.len()] == wanted[..],
            "root-b is not the image's root"
        );
        let boot = fs::read(self.path("boot-b")).unwrap();
        let uki = UKI_OFFSET as usize;
        assert!(
            boot[uki..uki + image.uki.len()] == image.uki[..],
            "boot-b is not the image's UKI"
        );
    }

    /// All bytes of the partitions that an installation may never touch.
    pub(crate) fn untouchable(&self) -> Vec<Vec<u8>> {
        ["boot-a", "root-a", "boot-r", "esp-a", "esp-b"]
            .map(|label| fs::read(self.path(label)).unwrap())
            .into()
    }
}

/// A command that has ended.
pub(crate) struct Ran(pub(crate) Output);

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out()).unwrap_or_else(|e| panic!("{e}: {}", self.out()))
    }

    /// It ended well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "{}{}", self.out(), self.err());
        self
    }

    /// It ended with this code.
    pub(crate) fn code_is(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{}{}", self.out(), self.err());
        self
    }

    /// It ended with this code, a message that has each of `says`, and what to do next.
    pub(crate) fn fails(self, code: i32, says: &[&str]) -> Self {
        let err = self.err();
        assert_eq!(self.code(), code, "{err}");
        for part in says {
            assert!(err.contains(part), "no \"{part}\" in: {err}");
        }
        assert!(err.contains("\n  next: "), "does not say what to do: {err}");
        self
    }
}
