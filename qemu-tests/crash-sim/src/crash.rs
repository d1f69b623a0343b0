//! Which disks a power cut can leave behind.
//!
//! What was flushed is there. Of what was written since, each sector may have arrived or not, in any order, and one of
//! them may have been torn: it holds neither the old bytes nor the new. That covers every prefix, every reordering and
//! every torn write: of two writes to one sector the older survives where the younger did not arrive.

use std::sync::Arc;

use crate::disk::{Contents, Operation, Part};
use crate::random::Random;

/// Up to so many sectors every subset is tried.
const EXHAUSTIVE: usize = 9;

/// The instants between two flushes.
pub(crate) struct Epoch {
    /// What had been flushed before.
    durable: Contents,
    /// What is written before the next flush, a sector a piece, in order.
    pieces: Vec<Piece>,
}

struct Piece {
    part: Part,
    offset: u64,
    bytes: Arc<[u8]>,
}

/// What of an epoch arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// A bit for each sector.
    pub(crate) kept: u128,
    /// The sector that holds garbage.
    pub(crate) torn: Option<usize>,
}

impl Epoch {
    /// The epochs of a log that began with `base`; the last one ends with the log.
    pub(crate) fn of(base: &Contents, log: &[Operation]) -> Vec<Self> {
        let mut epochs = vec![];
        let mut durable = base.clone();
        let mut pieces: Vec<Piece> = vec![];
        for operation in log {
            match operation {
                Operation::Write(part, offset, bytes) => {
                    let sector = durable.sector as usize;
                    let sectors = bytes.chunks(sector).zip((*offset..).step_by(sector));
                    pieces.extend(sectors.map(|(bytes, offset)| Piece {
                        part: *part,
                        offset,
                        bytes: bytes.into(),
                    }));
                }
                Operation::Flush if pieces.is_empty() => {}
                Operation::Flush => {
                    let mut after = durable.clone();
                    pieces.iter().for_each(|piece| piece.write_to(&mut after));
                    let pieces = std::mem::take(&mut pieces);
                    epochs.push(Self { durable, pieces });
                    durable = after;
                }
            }
        }
        epochs.push(Self { durable, pieces });
        for epoch in &epochs {
            assert!(
                epoch.pieces.len() <= 128,
                "too much is written without a flush"
            );
        }
        epochs
    }

    /// The cuts that are tried of each epoch: all where there are few sectors; else every prefix, whole and with its
    /// next sector torn, each sector missing, each alone.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        let count = self.pieces.len();
        let all = mask(count);
        let kept: Vec<u128> = if count <= EXHAUSTIVE {
            (0..=all).collect()
        } else {
            let prefixes = (0..=count).map(mask);
            let missing = (0..count).map(|piece| all & !(1 << piece));
            let alone = (0..count).map(|piece| 1 << piece);
            prefixes.chain(missing).chain(alone).collect()
        };
        let mut cuts = vec![];
        for kept in kept {
            cuts.push(Cut { kept, torn: None });
            let torn = (0..count).filter(|piece| kept >> piece & 1 == 0);
            let torn: Vec<usize> = if count <= EXHAUSTIVE {
                torn.collect()
            } else {
                torn.take(1).collect()
            };
            cuts.extend(torn.into_iter().map(|piece| Cut {
                kept,
                torn: Some(piece),
            }));
        }
        cuts
    }

    pub(crate) fn any(&self, random: &mut Random) -> Cut {
        let count = self.pieces.len();
        let bits = u128::from(random.next()) << 64 | u128::from(random.next());
        // Mostly a prefix with some reordering: every bit by chance alone is far from what disks do.
        let kept = match random.below(3) {
            0 => bits,
            1 => mask(random.below(count + 1)),
            _ => mask(random.below(count + 1)) ^ (1 << random.below(count.max(1))),
        };
        let torn = (count > 0 && random.below(2) == 0).then(|| random.below(count));
        Cut {
            kept: kept & mask(count),
            torn,
        }
    }

    /// The disk that a cut leaves.
    pub(crate) fn after(&self, cut: &Cut) -> Contents {
        let mut contents = self.durable.clone();
        for (index, piece) in self.pieces.iter().enumerate() {
            if cut.torn == Some(index) {
                piece.tear(&mut contents);
            } else if cut.kept >> index & 1 == 1 {
                piece.write_to(&mut contents);
            }
        }
        contents
    }

    /// The cut in words.
    pub(crate) fn describe(&self, cut: &Cut) -> String {
        let name = |(index, piece): (usize, &Piece)| {
            let how = match (cut.torn == Some(index), cut.kept >> index & 1 == 1) {
                (true, _) => "torn",
                (_, true) => "written",
                _ => "lost",
            };
            format!("{:?}+{:#x} {how}", piece.part, piece.offset)
        };
        let all: Vec<String> = self.pieces.iter().enumerate().map(name).collect();
        if all.is_empty() {
            "nothing in flight".into()
        } else {
            all.join(", ")
        }
    }
}

impl Piece {
    fn write_to(&self, contents: &mut Contents) {
        contents.write(self.part, self.offset, &self.bytes);
    }

    /// In turn 32 bytes arrived and 32 are something else, so that each structure is torn, however long it is and where
    /// in the sector it lies. What firmware writes is not torn.
    fn tear(&self, contents: &mut Contents) {
        if self.part == Part::Firmware {
            return;
        }
        let mut bytes = self.bytes.to_vec();
        for lost in bytes.chunks_mut(32).skip(1).step_by(2) {
            lost.iter_mut().for_each(|byte| *byte ^= 0xa5);
        }
        contents.write(self.part, self.offset, &bytes);
    }
}

fn mask(count: usize) -> u128 {
    1u128
        .checked_shl(count as u32)
        .map_or(u128::MAX, |bit| bit - 1)
}
