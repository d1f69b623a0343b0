//! Writing a slot anew whose disk has rotted, from the slot beside it.
//!
//! ```text
//!  1  every byte of both slots read: the one beside it is whole, this one is not  nothing written
//!  2  one commit, where the record lets the slot start: it is given up
//!  3  an installation into it, as of any bundle: the bundle is the slot beside it
//! ```

use boot_core::Device;

use super::{Installed, Options, install};
use crate::boot::control::Control;
use crate::boot::slot_check;
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Code, Result};
use crate::progress::Progress;
use crate::source::InSlot;

/// Writes the slot of `options`, which lies in `target`, from the other one. That is opened twice: as what blocks are
/// copied from, and as the `bundle`. None if the slot is whole.
///
/// # Errors
/// The other slot is not whole, or as for [`install`]; run again, it goes on.
pub fn repair<D: Device>(
    control: &mut Control<D>,
    target: &mut SlotDevices<D>,
    other: &mut SlotDevices<D>,
    bundle: SlotDevices<D>,
    options: &Options<'_>,
    progress: &Progress,
) -> Result<Option<Installed>> {
    let (slot, from) = (options.slot, options.slot.other());
    let record = control.record()?;
    progress.note(&format!("reading all of slot {from} and slot {slot}"));
    slot_check::whole(other, from, options.admission, &record).map_err(|e| {
        e.doing(format!(
            "reading slot {from}, which slot {slot} is to be written from"
        ))
        .next("install a bundle instead: `bootctl install SOURCE`")
    })?;
    match slot_check::whole(target, slot, options.admission, &record) {
        Ok(()) => return Ok(None),
        Err(e) if e.code != Code::Verification => return Err(e),
        Err(e) => {
            progress.note(&format!("slot {slot}: {e}"));
            if record.slot(slot).is_startable() {
                let _lock = control.lock()?;
                control.give_up_damaged(slot, &e.what)?;
            }
        }
    }
    let mut source = InSlot::open(from, bundle)?;
    install(control, target, Some(other), &mut source, options, progress)
        .map(Some)
        .map_err(|e| e.doing(format!("writing slot {slot} from slot {from}")))
}
