//! Firmware's variables, as the kernel shows them: which ESP the loader came from, and what is started next.
//!
//! An update needs one boot entry, `Boot####`, that BootNext can name; it is never put into BootOrder, so that firmware
//! which forgets it, or all of its variables, starts from the removable-media path as before. Sources: UEFI
//! specification 2.10, sections 3.1.3 (load options) and 10.3.5 (media device paths); systemd's Boot Loader Interface
//! for LoaderDevicePartUUID.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::{fmt, fs};

use block_file::Access;
use boot_core::device_path::{HardDrive, utf16};
use boot_core::efi_variable;
use boot_core::hand_over::{TIMER_FAULT_MAX, TIMER_FAULT_VARIABLE};
use boot_core::layout::{BOOT_LOADER_INTERFACE, VENDOR};
use boot_core::{Architecture, Device as _, esp};

use super::Esp;
use crate::failure::{Failure, Result};
use crate::machine::Machine;

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept, and seen by firmware and by the running system.
const ATTRIBUTES: u32 = 7;
const ACTIVE: u32 = 1;
/// Which entry is ours.
const DESCRIPTION: &str = "Sternpost: new loader";

/// The variables of this machine.
#[derive(Debug)]
pub struct Variables {
    directory: PathBuf,
}

/// Where `esp` is on this machine's disk.
///
/// # Errors
/// The initrd did not say.
pub fn place_of(machine: &Machine, esp: Esp) -> Result<HardDrive> {
    let unknown = || {
        Failure::failed(format!(
            "the initrd did not say where {esp} is in the table"
        ))
        .next("look at the disk with lsblk; if its table is damaged, start the machine again")
    };
    let entry = machine.boot.table.get(esp.label()).ok_or_else(unknown)?;
    let block = u64::from(machine.open(esp.label(), Access::Read)?.block_size());
    Ok(HardDrive {
        number: entry.number,
        guid: entry.guid.parse().map_err(|_| unknown())?,
        first: entry.start / block,
        blocks: entry.size / block,
    })
}

/// The ESP that the loader of this start lay on.
///
/// # Errors
/// It did not say, or it lay on neither.
pub fn started_from(machine: &Machine) -> Result<Esp> {
    let unknown = |what: String| {
        Failure::failed(what)
            .doing("finding the ESP that this machine was started from")
            .next("nothing was written; restart the machine, and if it stays so, look whether the disk's table is the image's")
    };
    let refused = |e: &dyn fmt::Display| unknown(format!("LoaderDevicePartUUID: {e}"));
    let variables = Variables::of(machine);
    let raw = variables
        .read_raw("LoaderDevicePartUUID", &BOOT_LOADER_INTERFACE.to_string())
        .map_err(|e| refused(&e))?
        .ok_or_else(|| unknown("the loader did not leave LoaderDevicePartUUID".into()))?;
    let text = from_utf16(efi_variable::of_this_start(&raw).map_err(|e| refused(&e))?);
    let is_it = |esp: &Esp| {
        let entry = machine.boot.table.get(esp.label());
        entry.is_some_and(|entry| entry.guid.eq_ignore_ascii_case(&text))
    };
    match Esp::BOTH.map(|esp| Some(esp).filter(is_it)) {
        [Some(esp), None] | [None, Some(esp)] => Ok(esp),
        [None, None] => Err(unknown(format!(
            "{text} is neither esp-a nor esp-b of this disk"
        ))),
        [Some(_), Some(_)] => Err(unknown(format!(
            "{text} is esp-a and esp-b of this disk: nothing tells them apart"
        ))),
    }
}

impl Variables {
    /// Those of `machine`.
    pub fn of(machine: &Machine) -> Self {
        Self {
            directory: machine.paths().at("/sys/firmware/efi/efivars"),
        }
    }

    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.directory.join(format!("{name}-{vendor}"))
    }

    /// A variable with its attributes; none if there is no such variable.
    fn read_raw(&self, name: &str, vendor: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name, vendor)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A variable's value; none if there is no such variable.
    fn read(&self, name: &str, vendor: &str) -> io::Result<Option<Vec<u8>>> {
        let raw = self.read_raw(name, vendor)?;
        Ok(raw.and_then(|raw| raw.get(4..).map(<[u8]>::to_vec)))
    }

    /// What firmware faulted in when the loader touched a hardware timer, which it leaves alone since: driver, version of
    /// the loader, revision of the firmware.
    pub fn timer_fault(&self) -> Option<String> {
        let found = self.read(TIMER_FAULT_VARIABLE, &VENDOR.to_string());
        let mut bytes = found.ok()??;
        bytes.truncate(TIMER_FAULT_MAX);
        let text = String::from_utf8_lossy(&bytes);
        Some(text.replace(char::is_control, " "))
    }

    /// Where the note of such a fault is, to be deleted.
    pub fn place_of_timer_fault() -> String {
        format!("/sys/firmware/efi/efivars/{TIMER_FAULT_VARIABLE}-{VENDOR}")
    }

    /// Sets a variable of the specification's. The kernel wants all of it in one write, and no truncation before.
    fn write(&self, name: &str, value: &[u8]) -> Result<()> {
        let path = self.path(name, GLOBAL);
        let bytes = [&ATTRIBUTES.to_le_bytes()[..], value].concat();
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|mut file| file.write_all(&bytes));
        written.map_err(|e| {
            Failure::of(e)
                .doing(format!("setting the firmware variable {name}"))
                .next("this firmware does not let the running system set what is started next: the loader of this machine cannot be updated in the field")
        })
    }

    fn remove(&self, name: &str) {
        // What is left behind is started by nobody.
        let _ = fs::remove_file(self.path(name, GLOBAL));
    }

    /// The numbers of all boot entries, in order.
    fn entries(&self) -> Vec<u16> {
        let Ok(files) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut entries: Vec<_> = files
            .filter_map(|file| {
                let name = file.ok()?.file_name().into_string().ok()?;
                let digits = name.strip_prefix("Boot")?.strip_suffix(GLOBAL)?;
                u16::from_str_radix(digits.strip_suffix('-')?, 16).ok()
            })
            .collect();
        entries.sort_unstable();
        entries
    }

    /// Our entry's number. One that cannot be read is somebody else's.
    fn ours(&self) -> Option<u16> {
        let ours = utf16(DESCRIPTION);
        let is_ours = |number: &u16| {
            let value = self.read(&entry_name(*number), GLOBAL).ok().flatten();
            let text = value.as_ref().and_then(|value| value.get(6..));
            text.is_some_and(|text| text.starts_with(&ours))
        };
        self.entries().into_iter().find(is_ours)
    }

    /// Makes the boot entry for the loader on the ESP at `place`, or changes the one from before; its number.
    ///
    /// # Errors
    /// Firmware refuses.
    pub fn make_entry(&self, place: &HardDrive, architecture: Architecture) -> Result<u16> {
        let taken = self.entries();
        let number = self
            .ours()
            .or_else(|| (0..=u16::MAX).find(|number| !taken.contains(number)))
            .unwrap_or(u16::MAX);
        self.write(&entry_name(number), &load_option(place, architecture))?;
        Ok(number)
    }

    /// Has firmware start entry `number` next, once.
    ///
    /// # Errors
    /// Firmware refuses.
    pub fn start_next(&self, number: u16) -> Result<()> {
        self.write("BootNext", &number.to_le_bytes())
    }

    /// Takes our entry away, and BootNext if it names it.
    pub fn forget(&self) {
        let Some(number) = self.ours() else {
            return;
        };
        let next = self.read("BootNext", GLOBAL).ok().flatten();
        if next.as_deref() == Some(&number.to_le_bytes()) {
            self.remove("BootNext");
        }
        self.remove(&entry_name(number));
    }
}

fn entry_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// EFI_LOAD_OPTION for the removable-media path on the partition at `place`.
fn load_option(place: &HardDrive, architecture: Architecture) -> Vec<u8> {
    let path = place.path_of(&[], &esp::path(architecture));
    let mut option = ACTIVE.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(DESCRIPTION));
    option.extend(path);
    option
}

fn from_utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> HardDrive {
        HardDrive {
            number: 2,
            guid: "12345678-9abc-def0-1234-56789abcdef0".parse().unwrap(),
            first: 133_120,
            blocks: 131_072,
        }
    }

    /// Byte by byte, as the specification has it.
    #[test]
    fn a_load_option_is_what_firmware_reads() {
        let option = load_option(&place(), Architecture::X86_64);
        let text = DESCRIPTION.len() * 2 + 2;
        assert_eq!(option[..6], [1, 0, 0, 0, 94, 0]);
        assert_eq!(option[6..6 + text], utf16(DESCRIPTION));
        let path = &option[6 + text..];
        assert_eq!(path.len(), 94);
        assert_eq!(path[..8], [4, 1, 42, 0, 2, 0, 0, 0]);
        assert_eq!(path[8..16], 133_120_u64.to_le_bytes());
        assert_eq!(path[16..24], 131_072_u64.to_le_bytes());
        assert_eq!(
            path[24..32],
            [0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde]
        );
        assert_eq!(path[40..46], [2, 2, 4, 4, 48, 0]);
        assert_eq!(from_utf16(&path[46..]), "\\EFI\\BOOT\\BOOTX64.EFI");
        assert_eq!(path[90..], [0x7f, 0xff, 4, 0]);
    }

    #[test]
    fn one_entry_is_ours_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let variables = Variables {
            directory: dir.path().to_owned(),
        };
        let put = |name: &str, value: &[u8]| variables.write(name, value).unwrap();
        put(
            "Boot0000",
            &[1, 0, 0, 0, 4, 0, b'x', 0, 0, 0, 0x7f, 0xff, 4, 0],
        );
        put("BootOrder", &[0, 0]);
        let number = variables
            .make_entry(&place(), Architecture::X86_64)
            .unwrap();
        assert_eq!(number, 1);
        variables.start_next(number).unwrap();
        assert_eq!(
            variables
                .make_entry(&place(), Architecture::X86_64)
                .unwrap(),
            1
        );
        assert_eq!(variables.entries().len(), 2);
        assert_eq!(
            variables.read("BootNext", GLOBAL).unwrap(),
            Some(vec![1, 0])
        );
        assert_eq!(
            variables.read("BootOrder", GLOBAL).unwrap(),
            Some(vec![0, 0])
        );
        variables.forget();
        assert_eq!(variables.read("BootNext", GLOBAL).unwrap(), None);
        assert_eq!(variables.entries().len(), 1);
        // An entry that cannot be read is not ours to write over.
        fs::create_dir(variables.path("Boot0001", GLOBAL)).unwrap();
        let next = variables.make_entry(&place(), Architecture::X86_64);
        assert_eq!(next.unwrap(), 2);
        // Somebody else's BootNext is not ours to take.
        put("BootNext", &[0, 0]);
        variables.forget();
        assert_eq!(
            variables.read("BootNext", GLOBAL).unwrap(),
            Some(vec![0, 0])
        );
    }
}
