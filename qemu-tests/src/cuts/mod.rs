//! Power cuts on the real artefacts: a machine loses its power at some moment of its life, its disk loses or reorders what
//! was not flushed, and it has to be well again with nobody's help.
//!
//! A machine's life is recorded once ([`life`]): QEMU keeps every write and every flush of its disk in a [`log`]. What a
//! cut at any moment of it leaves is made from the disk as it was and a part of the log ([`loss`]), which is the same as
//! pulling the plug then, and takes seconds instead of the minutes that lead there. From such a disk a machine is started
//! ([`cut`]). One in three is killed again at a random moment of that start, and its disk loses what it had not flushed.
//! What became of each seed is kept ([`results`]), so that ranges of seeds add up.

pub mod cut;
pub mod life;
pub mod log;
pub mod loss;
pub mod results;
