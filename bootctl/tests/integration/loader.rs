//! Updating the loader: the command and what the service does at the next start; and a life of it in which the power
//! goes at each write.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;

use block_file::{Access, BlockFile};
use boot_core::keyring::KeySet;
use boot_core::manifest::Kind;
use boot_core::pe;
use boot_core::public_key::KeyFormat;
use boot_core::test_support::program;
use boot_core::trust::Trust;
use boot_core::{Architecture, Device, Digest, Slot, Target, esp, transition};
use bootctl::failure::Failure;
use bootctl::loader::under_way::go_on;
use bootctl::loader::{self, Esp, Esps, Update, UpdateOutcome, UpdateStage};
use bootctl::machine::Machine;

use crate::fixture::{ESP_A, ESP_B, ESP_SIZE, Fixture, Image, public, trust};

const X86: Architecture = Architecture::X86_64;
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A loader with this trust; `mark` tells one from another.
fn loader_trusting(trust: &Trust, mark: u8) -> Vec<u8> {
    let mut bytes = program(X86, &trust.to_section().unwrap());
    bytes.extend([mark; 3000]);
    pe::seal(&mut bytes);
    bytes
}

fn loader(mark: u8) -> Vec<u8> {
    loader_trusting(&trust(), mark)
}

pub(crate) fn bundle(machine: &Fixture, mark: u8) -> String {
    let image = Image::loader("2.0", loader(mark));
    machine.file("loader.spb", &image.bundle())
}

/// Both ESPs hold loader 1, the first of them started the machine.
pub(crate) fn machine() -> Fixture {
    let machine = Fixture::new();
    for label in ["esp-a", "esp-b"] {
        machine.partition(label).set_len(ESP_SIZE).unwrap();
        write(&machine, label, 1);
    }
    starts_from(&machine, ESP_A);
    machine
}

fn write(machine: &Fixture, label: &str, mark: u8) {
    let mut device = BlockFile::open(&machine.path(label), Access::Alone).unwrap();
    esp::write(&mut device, &loader(mark), X86).unwrap();
}

fn read(machine: &Fixture, label: &str) -> Option<Vec<u8>> {
    let mut device = BlockFile::open(&machine.path(label), Access::Read).unwrap();
    esp::read_loader(&mut device, X86).ok()
}

fn variable(machine: &Fixture, name: &str) -> std::path::PathBuf {
    let directory = machine.root().join("sys/firmware/efi/efivars");
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

/// What the loader leaves that lies on the partition with this GUID.
fn starts_from(machine: &Fixture, guid: &str) {
    starts_from_by(machine, guid, 6);
}

const STARTED_FROM: &str = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The same, by a variable with these attributes.
fn starts_from_by(machine: &Fixture, guid: &str, attributes: u8) {
    let text = guid.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
    let bytes: Vec<u8> = [attributes, 0, 0, 0].into_iter().chain(text).collect();
    fs::write(variable(machine, STARTED_FROM), bytes).unwrap();
}

/// The update that is under way is one of an earlier boot.
fn restarted(machine: &Fixture) {
    let path = machine.root().join("state/sternpost/loader-update.json");
    let mut update = Update::read(&path).unwrap().unwrap();
    update.boot_id = "the boot before".into();
    update.write(&path).unwrap();
}

fn serve(machine: &Fixture) -> Result<Option<UpdateOutcome>, Failure> {
    go_on(&Machine::read(machine.root()).unwrap(), Slot::A)
}

#[test]
fn a_new_loader_goes_onto_one_esp_and_then_onto_the_other() {
    let machine = machine();
    let file = bundle(&machine, 2);
    let esp_a = fs::read(machine.path("esp-a")).unwrap();
    let said = machine.run(&["update-loader", &file, "--json"]).ok().json();
    assert_eq!(said["loader"]["esp"], "esp-b");
    assert!(read(&machine, "esp-b").unwrap() == loader(2));
    assert!(
        fs::read(machine.path("esp-a")).unwrap() == esp_a,
        "untouched"
    );
    let next = fs::read(variable(&machine, &format!("BootNext-{GLOBAL}"))).unwrap();
    assert_eq!(next, [7, 0, 0, 0, 0, 0]);
    let entry = fs::read(variable(&machine, &format!("Boot0000-{GLOBAL}"))).unwrap();
    let guid: boot_core::layout::Guid = ESP_B.parse().unwrap();
    assert!(entry.windows(16).any(|bytes| bytes == guid.0));
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("an update of the loader to version 2.0 is not over: esp-b is tried"),
        "{status}"
    );
    // The service was started again: nothing has been tried yet.
    assert_eq!(serve(&machine).unwrap(), None);
    assert!(read(&machine, "esp-a").unwrap() == loader(1));

    restarted(&machine);
    starts_from(&machine, ESP_B);
    machine.change(|r| {
        let mut trial = r.clone();
        trial.a.successful = false;
        trial
    });
    assert_eq!(serve(&machine).unwrap(), None, "the slot is not good yet");
    machine.change(|r| transition::mark_good(r, Slot::A, &r.a.digest.clone(), Target::A).unwrap());
    assert_eq!(serve(&machine).unwrap(), Some(UpdateOutcome::Done));
    assert!(read(&machine, "esp-a").unwrap() == loader(2));
    assert!(!variable(&machine, &format!("Boot0000-{GLOBAL}")).exists());
    assert_eq!(serve(&machine).unwrap(), None, "it is over");
    let history = machine.run(&["history"]).ok().out();
    assert!(
        history.contains("has started this machine: on both ESPs"),
        "{history}"
    );
    let status = machine.run(&["status", "--json"]).ok().json();
    assert_eq!(
        status["esps"]["esp-a"]["loader"],
        status["esps"]["esp-b"]["loader"]
    );
    assert_eq!(status["esps"]["esp-b"]["booted"], true);
    assert_eq!(status["loader_update"], serde_json::Value::Null);
    let again = machine.run(&["update-loader", &file, "--json"]).ok().json();
    assert_eq!(again["loader"]["was_there"], true);
}

#[test]
fn a_loader_that_does_not_start_is_given_up_with_its_reason() {
    let machine = machine();
    machine.run(&["update-loader", &bundle(&machine, 2)]).ok();
    restarted(&machine);
    assert!(matches!(
        serve(&machine),
        Ok(Some(UpdateOutcome::PutBack(_)))
    ));
    assert!(read(&machine, "esp-b").unwrap() == loader(1));
    let history = machine.run(&["history"]).ok().out();
    assert!(
        history.contains("loader-given-up")
            && history.contains("started from esp-a instead of esp-b"),
        "{history}"
    );
    assert!(!history.contains("unknown"), "{history}");
}

#[test]
fn an_update_that_was_cut_is_undone_at_the_next_start() {
    let machine = machine();
    machine.run(&["update-loader", &bundle(&machine, 2)]).ok();
    restarted(&machine);
    let path = machine.root().join("state/sternpost/loader-update.json");
    let mut update = Update::read(&path).unwrap().unwrap();
    update.stage = UpdateStage::Writing;
    update.write(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&machine.partition("esp-b"), &[0; 16384], 0).unwrap();
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("esp-b: holds no FAT32 filesystem"),
        "{status}"
    );
    assert!(matches!(
        serve(&machine),
        Ok(Some(UpdateOutcome::PutBack(_)))
    ));
    assert!(read(&machine, "esp-b").unwrap() == loader(1));
}

#[test]
fn a_damaged_esp_is_written_from_the_other_one() {
    let machine = machine();
    machine.partition("esp-a").set_len(0).unwrap();
    machine.partition("esp-a").set_len(ESP_SIZE).unwrap();
    // That the one which started the machine is whole is looked at before the other one is touched.
    machine
        .run(&["update-loader", &bundle(&machine, 2)])
        .fails(1, &["esp-a", "no FAT32", "--copy"]);
    machine
        .run(&["update-loader", "--copy"])
        .fails(1, &["esp-a"]);
    assert!(read(&machine, "esp-b").unwrap() == loader(1));
    starts_from(&machine, ESP_B);
    machine.run(&["update-loader", "--copy"]).ok();
    assert!(read(&machine, "esp-a").unwrap() == loader(1));
    // Firmware may start esp-a first, now that it holds a loader: it must not get an unproven one.
    let new = bundle(&machine, 2);
    machine
        .run(&["update-loader", &new])
        .fails(3, &["which one firmware starts by itself", "restart"]);
    fs::remove_file(machine.root().join("run/sternpost/esp-written")).unwrap();
    machine.run(&["update-loader", &new]).ok();
    assert!(read(&machine, "esp-a").unwrap() == loader(2));
    machine
        .run(&["update-loader", &new])
        .fails(3, &["to version 2.0 is not over", "restart"]);
    // This ends it as well.
    machine.run(&["update-loader", "--copy"]).ok();
    assert!(read(&machine, "esp-a").unwrap() == loader(1));
    assert!(!variable(&machine, &format!("BootNext-{GLOBAL}")).exists());
    assert_eq!(serve(&machine).unwrap(), None);
}

#[test]
fn what_must_not_be_written_is_refused_before_anything_is() {
    let machine = machine();
    let before = ["esp-a", "esp-b"].map(|label| fs::read(machine.path(label)).unwrap());
    let put = |image: &Image| machine.file("x.spb", &image.bundle());
    let system = put(&Image::new("2.0"));
    machine.run(&["update-loader", &system]).fails(
        4,
        &["its kind is system, expected loader", "bootctl install"],
    );
    let good = bundle(&machine, 2);
    machine
        .run(&["install", &good])
        .fails(4, &["its kind is loader, expected system", "update-loader"]);
    for (kind, next) in [
        (Kind::Content, "cannot install yet"),
        (Kind::Extension, "cannot install yet"),
        (Kind::Installer, "cannot use yet"),
    ] {
        let other = put(&Image::small("2.0").of_kind(kind));
        for (command, expected) in [("install", "system"), ("update-loader", "loader")] {
            let said = format!("its kind is {kind}, expected {expected}");
            machine.run(&[command, &other]).fails(4, &[&said, next]);
        }
    }
    let mut forged = Image::loader("2.0", loader(2));
    forged.signing_key = 9;
    machine
        .run(&["update-loader", &put(&forged)])
        .fails(4, &["signed"]);
    let mut old = Image::loader("2.0", loader(2));
    old.manifest.security_version = boot_core::SecurityVersion(0);
    machine.change(transition::raise_floor);
    machine
        .run(&["update-loader", &put(&old)])
        .fails(4, &["below the floor"]);
    let other = Trust {
        product: "other".into(),
        ..trust()
    };
    let other = Image::loader("2.0", loader_trusting(&other, 2));
    machine
        .run(&["update-loader", &put(&other)])
        .fails(4, &["product \"other\""]);
    let no_loader = Image::loader("2.0", vec![7; 5000]);
    machine
        .run(&["update-loader", &put(&no_loader)])
        .fails(4, &["no Sternpost loader"]);
    let keys = Trust {
        root: KeySet::new(KeyFormat::V1, 1, vec![public(77)]).unwrap(),
        ..trust()
    };
    let keys = Image::loader("2.0", loader_trusting(&keys, 2));
    machine
        .run(&["update-loader", &put(&keys)])
        .fails(3, &["would not start slot A", "new root keys"]);
    let after = ["esp-a", "esp-b"].map(|label| fs::read(machine.path(label)).unwrap());
    assert!(before == after);

    machine.run(&["update-loader"]).code_is(2);
    machine.change(|r| {
        let mut trial = r.clone();
        trial.a.successful = false;
        trial
    });
    machine
        .run(&["update-loader", &good])
        .fails(3, &["slot A is"]);
    machine.boots(Target::Recovery, &Image::new("1.0"));
    machine
        .run(&["update-loader", &good])
        .fails(3, &["recovery system"]);
}

#[test]
fn where_the_loader_did_not_say_what_it_came_from_nothing_is_written() {
    let machine = machine();
    starts_from(&machine, "0f0f0f0f-0000-4000-8000-0000000000ff");
    machine
        .run(&["update-loader", &bundle(&machine, 2)])
        .fails(1, &["neither esp-a nor esp-b"]);
    fs::remove_dir_all(machine.root().join("sys")).unwrap();
    machine
        .run(&["update-loader", &bundle(&machine, 2)])
        .fails(1, &["did not leave LoaderDevicePartUUID"]);
    // Somebody stored one that names the other ESP: the one that would be written has started the machine.
    let new = bundle(&machine, 2);
    for command in [["update-loader", new.as_str()], ["update-loader", "--copy"]] {
        starts_from_by(&machine, ESP_B, 7);
        machine.run(&command).fails(1, &["non-volatile"]);
        fs::remove_file(variable(&machine, STARTED_FROM)).unwrap();
        fs::create_dir(variable(&machine, STARTED_FROM)).unwrap();
        machine.run(&command).fails(1, &["LoaderDevicePartUUID: "]);
        fs::remove_dir(variable(&machine, STARTED_FROM)).unwrap();
    }
    assert!(read(&machine, "esp-a").unwrap() == loader(1));
    assert!(read(&machine, "esp-b").unwrap() == loader(1));
}

#[test]
fn an_esp_with_another_loader_is_not_the_first_to_get_a_new_one() {
    let machine = machine();
    write(&machine, "esp-b", 3);
    machine
        .run(&["update-loader", &bundle(&machine, 2)])
        .fails(3, &["esp-b does not hold the loader of esp-a", "--copy"]);
    assert!(read(&machine, "esp-b").unwrap() == loader(3));
}

#[test]
fn what_could_not_be_brought_to_its_end_is_tried_again_at_the_next_start() {
    let machine = machine();
    machine.run(&["update-loader", &bundle(&machine, 2)]).ok();
    restarted(&machine);
    // The loader that started the machine is not the one that was there before.
    write(&machine, "esp-a", 3);
    let failed = serve(&machine).unwrap_err();
    assert!(failed.to_string().contains("esp-a"), "{failed}");
    assert!(read(&machine, "esp-b").unwrap() == loader(2));
    write(&machine, "esp-a", 1);
    assert!(matches!(
        serve(&machine),
        Ok(Some(UpdateOutcome::PutBack(_)))
    ));
    assert!(read(&machine, "esp-b").unwrap() == loader(1));
}

/// An ESP of a machine whose power goes after so many writes, in the middle of the last one. Sectors that are not there
/// are zero.
#[derive(Clone)]
struct Cut {
    sectors: BTreeMap<u64, [u8; 512]>,
    left: Rc<Cell<usize>>,
}

impl Cut {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (at, sector) in (offset..).step_by(512).zip(bytes.chunks(512)) {
            match <[u8; 512]>::try_from(sector) {
                Ok(bytes) if bytes != [0; 512] => self.sectors.insert(at, bytes),
                _ => self.sectors.remove(&at),
            };
        }
    }
}

impl Device for Cut {
    type Error = &'static str;

    fn block_size(&self) -> u32 {
        512
    }

    /// Hardly more than FAT32 needs: it is written a thousand times.
    fn size(&self) -> u64 {
        34 << 20
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        for (at, sector) in (offset..).step_by(512).zip(buf.chunks_mut(512)) {
            sector.copy_from_slice(self.sectors.get(&at).unwrap_or(&[0; 512]));
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Self::Error> {
        let left = self.left.get().checked_sub(1).ok_or("the power is gone")?;
        self.left.set(left);
        let arrives = if left == 0 {
            buf.len() / 2 / 512 * 512
        } else {
            buf.len()
        };
        self.put(offset, &buf[..arrives]);
        if left == 0 {
            Err("the power goes")
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What firmware starts: the ESP that it was told to, or the first that holds a loader.
fn firmware(esps: &mut Esps<Cut>, told: Option<Esp>) -> Esp {
    let order = told.into_iter().chain(Esp::BOTH);
    let mut whole = order.filter(|esp| esps.loader(*esp, X86).is_ok());
    whole.next().expect("an ESP that holds a loader")
}

/// The power goes at each write of the update, then at each write of what the next start does about it, with firmware
/// that does what it was told and firmware that forgot it. There is always a loader, it is always one of the two, the
/// one that the machine runs from is not written, and in the end both ESPs hold the same.
#[test]
fn wherever_the_power_goes_there_is_a_loader_and_in_the_end_two() {
    let left = Rc::new(Cell::new(usize::MAX));
    let esp = || Cut {
        sectors: BTreeMap::new(),
        left: left.clone(),
    };
    let (old, new) = (loader(1), loader(2));
    let mut fresh = Esps { a: esp(), b: esp() };
    for which in Esp::BOTH {
        fresh.write(which, &old, X86).unwrap();
    }
    let mut ends = [0; 2];
    for first in 0.. {
        let mut esps = Esps {
            a: fresh.a.clone(),
            b: fresh.b.clone(),
        };
        let mut update = Update {
            format: 1,
            esp: Esp::B,
            loader: Digest::of(&new),
            old: Some(Digest::of(&old)),
            version: "2.0".parse().unwrap(),
            manifest: Digest::ZERO,
            boot_id: "0".into(),
            stage: UpdateStage::Writing,
        };
        let mut kept = None;
        left.set(first);
        // Keeping is an operation as well, which is there or is not.
        let keep = |update: &Update| -> Result<(), Failure> {
            let more = left.get().checked_sub(1);
            left.set(more.ok_or_else(|| Failure::failed("the power is gone"))?);
            kept = Some(update.clone());
            Ok(())
        };
        let whole = loader::put(&mut update, &new, &mut esps, X86, keep).is_ok();
        left.set(usize::MAX);
        assert!(
            esps.loader(Esp::A, X86).unwrap() == old,
            "what runs is not written"
        );
        for told in [None, Some(Esp::B)] {
            for second in (0..30).step_by(if whole { 1 } else { 7 }) {
                let mut esps = Esps {
                    a: esps.a.clone(),
                    b: esps.b.clone(),
                };
                let from = firmware(&mut esps, told.filter(|_| whole));
                if let Some(kept) = &kept {
                    left.set(second);
                    let _ = loader::bring_forward(kept, "1", from, &mut esps, X86);
                    left.set(usize::MAX);
                    // What was not brought to its end is tried again at the next start.
                    let from = firmware(&mut esps, None);
                    loader::bring_forward(kept, "2", from, &mut esps, X86).unwrap();
                }
                let [a, b] = Esp::BOTH.map(|esp| esps.loader(esp, X86).unwrap());
                assert!(
                    a == b && (a == old || a == new),
                    "cut at {first}, then at {second}"
                );
                ends[usize::from(a == new)] += 1;
            }
        }
        if whole {
            break;
        }
    }
    assert!(ends.iter().all(|count| *count > 20), "{ends:?}");
}

/// What makes the loader leave a timer alone, and what it went by under Secure Boot.
#[test]
fn status_names_what_firmware_faulted_in_and_floors_that_it_did_not_give() {
    let machine = machine();
    let status = || machine.run(&["status", "--json"]).ok().json();
    let problems = || status()["problems"].to_string();
    assert_eq!(status()["watchdog"]["timer_fault"], serde_json::Value::Null);
    assert_eq!(status()["floors"], serde_json::Value::Null);
    assert!(!problems().contains("firmware"), "{}", problems());

    let name = "SternpostTimerFault-6e56d3ab-d913-4a68-afdf-73638fbec4a8";
    let note = [&[7, 0, 0, 0][..], b"wdat_wdt 0.1.0 0x10000\x1b[2J"].concat();
    fs::write(variable(&machine, name), note).unwrap();
    assert_eq!(
        status()["watchdog"]["timer_fault"],
        "wdat_wdt 0.1.0 0x10000 [2J"
    );
    let said = problems();
    assert!(said.contains("firmware faulted when the loader"), "{said}");
    assert!(
        said.contains(&format!("rm /sys/firmware/efi/efivars/{name}")),
        "{said}"
    );

    let path = machine.root().join("run/sternpost/handover.json");
    let mut handed_over: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let level =
        |version: u64| serde_json::json!({"security_version": version, "keyring_serial": 1});
    handed_over["floors"] = serde_json::json!({"system": level(7), "recovery": level(3)});
    for (known, line) in [
        (
            true,
            "with firmware's floors: 7 (keyring 1), recovery's 3 (keyring 1)",
        ),
        (false, "firmware's floors could not be read"),
    ] {
        handed_over["firmware_floors"] = known.into();
        fs::write(&path, handed_over.to_string()).unwrap();
        let text = machine.run(&["status"]).ok().out();
        assert!(text.contains(line), "{text}");
        assert_eq!(status()["floors"]["firmware_known"], known);
        assert_eq!(status()["floors"]["system"]["security_version"], 7);
        let is_a_problem = problems().contains("firmware's floors could not be read, or");
        assert_eq!(is_a_problem, !known, "{}", problems());
    }
}
