//! The loader's own file. But for Secure Boot, firmware starts whatever it finds on an ESP, and would meet a bit that
//! flipped there at every start: the loader looks itself, and has the one on the other ESP take its place. It
//! repairs nothing: `bootctl status` tells of it, `bootctl update-loader --copy` mends it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use boot_core::layout::Label;
use boot_core::trust::Trust;
use boot_core::{Architecture, esp};

use super::boot_disk::BootDisk;
use super::console::say;
use super::firmware;

/// Starts the loader of the other ESP, if the one on this ESP is damaged and the other one is not. Returns where there
/// is nothing better than to go on.
pub(super) fn leave_if_damaged(disk: &BootDisk) {
    let esps = [Label::EspA, Label::EspB].map(Label::label);
    let own = disk.loaded_from().map(|it| it.label.as_str());
    let (own, other) = match (own, esps) {
        (Some(own), [a, b]) if own == a => (a, b),
        (Some(own), [a, b]) if own == b => (b, a),
        _ => return,
    };
    let Err(damage) = read(disk, own) else {
        return;
    };
    say!("{own}: {damage}");
    let failed = match read(disk, other) {
        Ok(program) => {
            say!("starting the loader of {other}");
            start(disk, other, &program)
        }
        Err(reason) => reason,
    };
    say!("{other}: {failed}; going on with the one of {own}");
}

/// The loader on an ESP, whole.
fn read(disk: &BootDisk, label: &str) -> Result<Vec<u8>, String> {
    let mut partition = disk.partition(label).map_err(|error| error.to_string())?;
    let program =
        esp::read_loader(&mut partition, Architecture::OWN).map_err(|error| error.to_string())?;
    match Trust::from_intact_program(&program) {
        Ok(_) => Ok(program),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts it as firmware would have. Returns only if it does not start, with the reason.
fn start(disk: &BootDisk, label: &str, program: &[u8]) -> String {
    let Some(path) = disk.path_of(label, &esp::path(Architecture::OWN)) else {
        return "is not in the partition table".into();
    };
    match firmware::start_program(program, &path) {
        Ok(()) => "its loader came back".into(),
        Err(error) => format!("firmware does not start its loader: {}", error.status()),
    }
}
