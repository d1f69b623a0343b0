//! The loader's whole decision, on a disk on which anything was changed.
//!
//! - what is chosen is an image that was signed, for the slot that it was signed for, to the byte;
//! - the loader comes to an end, and names each thing once;
//! - a slot that is not good starts only when that is on the disk, or as the last resort;
//! - nothing starts below a floor that firmware keeps, which never falls, and is not written where it cannot be read.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use boot_core::boot::Boot;
use boot_core::boot::variable::{ATTRIBUTES, Answer, Kept};
use boot_core::manifest::Kind;
use boot_core::select::Why;
use boot_core::slot_header::SlotHeader;
use boot_core::store::COPIES;
use boot_core::test_support::{Image, Machine, trust};
use boot_core::{Device as _, Target};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::{Flip, seal, structure};

/// Two systems and a recovery system.
static IMAGES: LazyLock<[Image; 3]> = LazyLock::new(|| {
    [
        Image::new(Kind::System, "1.0", 1),
        Image::new(Kind::System, "1.1", 2),
        Image::new(Kind::Recovery, "r", 1),
    ]
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Which image is in A, B and recovery; none for 3.
    holds: [u8; 3],
    copies: [Option<&'a [u8]>; 2],
    /// Digests in the record are those of the images.
    knows: bool,
    changes: Vec<Change>,
    fails_to_start: bool,
    read_only: bool,
    secure_boot: bool,
    /// What firmware answers when it is asked for each floor.
    variables: [Variable; 4],
}

#[derive(Arbitrary, Debug)]
enum Variable {
    Absent,
    Error,
    TooLong,
    Value([u8; 9], u8, u8),
    Floor(u8),
}

impl Variable {
    fn answer(&self) -> Answer {
        match *self {
            Self::Absent => Answer::Absent,
            Self::Error => Answer::Error("DEVICE_ERROR".into()),
            Self::TooLong => Answer::TooLong,
            Self::Value(bytes, length, attributes) => Answer::Value {
                bytes: bytes[..usize::from(length % 10)].into(),
                attributes: attributes.into(),
            },
            Self::Floor(floor) => Answer::Value {
                bytes: u64::from(floor % 4).to_le_bytes().into(),
                attributes: ATTRIBUTES,
            },
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Change {
    /// A number of the header of a slot, which is sealed again.
    Header(u8, u8, u64),
    Byte(u8, Flip),
}

/// Magic, format 1, length 512.
const HEAD: &[u8] = b"STRNPOST\x01\0\0\x02";

fn change(machine: &mut Machine, change: &Change) {
    let (Change::Header(slot, ..) | Change::Byte(slot, _)) = change;
    let Some(device) = &mut machine.slots[usize::from(slot % 3)] else {
        return;
    };
    match change {
        Change::Byte(_, flip) => flip.apply(&mut device.bytes),
        Change::Header(_, field, value) => {
            // Where in the header, and how long: two of 4 bytes twice, two of 8.
            let (at, length) = [
                (16, 4),
                (20, 4),
                (24, 4),
                (28, 4),
                (32, 8),
                (40, 8),
                (10, 1),
            ][usize::from(field % 7)];
            device.bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
            seal(&mut device.bytes[..512], 12);
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let images = input.holds.map(|which| IMAGES.get(usize::from(which % 4)));
    let mut machine = Machine::new(512, images);
    let state = machine.boot_state.as_mut().expect("there is one");
    for (at, data) in COPIES.iter().zip(input.copies) {
        let Some(data) = data else { continue };
        let mut bytes = structure::<512>(data, HEAD, 12);
        if input.knows {
            for (entry, image) in [64, 160].into_iter().zip(images) {
                let digest = image.map(|it| it.digest).unwrap_or_default();
                bytes[entry + 16..entry + 48].copy_from_slice(&digest.0);
            }
            seal(&mut bytes, 12);
        }
        state.write_at(*at, &bytes).expect("it is within the disk");
    }
    state.read_only = input.read_only;
    for it in input.changes.iter().take(8) {
        change(&mut machine, it);
    }
    machine.secure_boot = input.secure_boot;
    machine.variables = input.variables.each_ref().map(Variable::answer);
    let before = machine.record();
    let (answered, floors) = (machine.variables.clone(), machine.floors());
    let trust = trust();
    let mut boot = Boot::new(&trust);
    let mut chosen = 0;
    while let Some(next) = boot.next(&mut machine) {
        chosen += 1;
        assert!(chosen <= 6, "the loader does not come to an end");
        let image = IMAGES
            .iter()
            .find(|image| image.digest == next.verified.digest)
            .expect("nobody signed it");
        assert!(next.image == image.uki, "other bytes than were signed");
        if machine.secure_boot {
            let floor = floors.of(next.target);
            assert_eq!(floor.admits(next.verified.level()), Ok(()));
            assert_eq!(machine.floors().max(floors), machine.floors());
        }
        for (before, after) in answered.iter().zip(&machine.variables) {
            let kept = matches!(before.floor(), Kept::Unknown(_)) || !machine.secure_boot;
            assert!(!kept || before == after, "it was written");
        }
        let recovery = image.manifest.kind == Kind::Recovery;
        assert_eq!(recovery, next.target == Target::Recovery);
        let slot = machine.slot_mut(next.target).as_mut().expect("it was read");
        let header = SlotHeader::decode(slot.bytes.first_chunk().expect("it has a block"));
        assert!(header.is_ok_and(|header| header.slot == next.target));
        if let Some(slot) = next.target.slot() {
            let good = before.as_ref().is_some_and(|it| it.slot(slot).is_good());
            assert!(
                next.recorded || good || next.why == Why::Uncounted,
                "{next:?}"
            );
        }
        if !input.fails_to_start {
            return;
        }
        boot.failed_to_start(&mut machine, next.target, "it would not");
    }
});
