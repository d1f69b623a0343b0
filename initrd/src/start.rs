//! Which start this is: what the loader handed over, and what the kernel's command line says of the root.

use std::fs;

use boot_core::Target;
use boot_core::hand_over::HandOver;

use crate::cmdline::{self, Root};
use crate::drivers::EFIVARFS;
use crate::failure::{Context, Failure};
use crate::{abort, hand_over, modules};

pub(crate) struct Start {
    pub(crate) hand_over: HandOver,
    pub(crate) raw: Vec<u8>,
    pub(crate) root: Root,
}

impl Start {
    pub(crate) fn is_recovery(&self) -> bool {
        self.root == Root::Recovery
    }
}

/// The loader's hand-over, and its bytes.
pub(crate) fn read_hand_over() -> Result<(HandOver, Vec<u8>), Failure> {
    // Built in, or a failure that the mount will show.
    let _ = modules::load(EFIVARFS);
    let raw = hand_over::read()?;
    let hand_over = HandOver::from_json(&raw).context("reading", "the loader's hand-over")?;
    Ok((hand_over, raw))
}

/// Reads the command line and sees that it and the hand-over fit.
pub(crate) fn identify((hand_over, raw): (HandOver, Vec<u8>)) -> Result<Start, Failure> {
    abort::remember(|facts| {
        facts.target = Some(hand_over.slot);
        facts.nonce = Some(hand_over.nonce);
        facts.digest = Some(hand_over.manifest);
    });
    let kernel = fs::read_to_string("/proc/cmdline").context("reading", "/proc/cmdline")?;
    let image =
        fs::read_to_string("/sternpost/cmdline").context("reading", "/sternpost/cmdline")?;
    let root = cmdline::check(&kernel, &image).context("checking", "the kernel's command line")?;
    if (root == Root::Recovery) != (hand_over.slot == Target::Recovery) {
        return Err(Failure::new(
            "checking",
            "the kernel's command line",
            format!(
                "the loader started {}, but this kernel is built for something else",
                hand_over.slot
            ),
        ));
    }
    Ok(Start {
        hand_over,
        raw,
        root,
    })
}
