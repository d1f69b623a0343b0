//! What is damaged, how, on which machine; and what is to come of it.
//!
//! [`EXPECTED`] is to be read as a table. It says what the design promises, not what the code does: a cell that comes
//! out otherwise is a failure. docs/reliability.md holds the same table, and a test compares them.

use std::fmt::{self, Write as _};

/// What a machine is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Situation {
    /// Slot A is good and runs; slot B is good and older.
    BothGood,
    /// Slot B is on trial and starts next; slot A is good and older.
    OnTrial,
    /// Slot A is good and runs; slot B is empty, as an installation leaves it that was cut.
    Alone,
}

/// Which slot of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that starts next.
    First,
    /// The one beside it.
    Other,
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Other,
            Self::Other => Self::First,
        }
    }
}

/// A part of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Header,
    /// The manifest's envelope without the manifest: payload type and signatures.
    Envelope,
    Manifest,
    /// The keyring chain.
    Keyring,
    Uki,
    /// The data of the root.
    Root,
    /// The verity tree of the root.
    Tree,
    /// All of it, both partitions.
    Whole,
}

/// A part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// The protective MBR, where it holds code for a BIOS.
    MbrCode,
    /// The protective MBR, where it says that there is a GPT.
    MbrEntry,
    /// The primary table's header.
    PrimaryHeader,
    /// The primary table's entries.
    PrimaryEntries,
    /// Both.
    PrimaryTable,
    /// The backup table's entries.
    BackupEntries,
    /// The backup table's header.
    BackupHeader,
    /// Both.
    BackupTable,
    /// The entry of `boot-state` in both tables, which are valid all the same: gone, or there are two of it.
    BootStateEntry,
    EspA,
    EspB,
    /// The copy of the boot-state record that counts.
    RecordNewest,
    /// The other copy.
    RecordOther,
    /// Both copies.
    RecordBoth,
    EventRing,
    QuarantineRing,
    /// The number of the copy that counts: one that none gets, under a checksum that is right.
    RecordNumber,
    /// The numbers of both copies.
    RecordNumbers,
    /// An entry of each ring with such a number.
    RingNumbers,
    /// A part of a slot.
    Slot(Role, Piece),
    /// A part of recovery.
    Recovery(Piece),
    StateSuperblock,
    StateJournal,
}

impl Region {
    /// Regions that are damaged together, each for itself.
    pub(super) fn parts(self) -> Vec<Self> {
        match self {
            Self::PrimaryTable => vec![Self::PrimaryHeader, Self::PrimaryEntries],
            Self::BackupTable => vec![Self::BackupEntries, Self::BackupHeader],
            Self::RecordBoth => vec![Self::RecordNewest, Self::RecordOther],
            one => vec![one],
        }
    }
}

/// What is done to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// One bit is another.
    FlippedBit,
    Zeros,
    /// Anything.
    Random,
    /// From some byte on, zeros.
    Truncated,
    /// What was there two upgrades ago.
    Stale,
    /// What belongs into its twin is here as well.
    Misplaced,
    /// It and its twin have changed places.
    Swapped,
    /// One sector of it cannot be read.
    Unreadable,
}

impl Damage {
    /// In the order of the table's columns.
    pub(super) const ALL: [Self; 8] = [
        Self::FlippedBit,
        Self::Zeros,
        Self::Random,
        Self::Truncated,
        Self::Stale,
        Self::Misplaced,
        Self::Swapped,
        Self::Unreadable,
    ];

    /// One word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FlippedBit => "flipped-bit",
            Self::Zeros => "zeros",
            Self::Random => "random",
            Self::Truncated => "truncated",
            Self::Stale => "stale",
            Self::Misplaced => "misplaced",
            Self::Swapped => "swapped",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is no such damage: it would change nothing.
    None,
    /// The slot starts that would have started anyway.
    Same,
    /// The same slot starts, and the region is whole again.
    Mended,
    /// The same slot starts from a record made anew.
    Rebuilt,
    /// The last change of the record is lost: what had been preferred before starts.
    Earlier,
    /// The other slot starts, and it is recorded why this one did not.
    Other,
    /// dm-verity stops the slot; the other one takes over, reads the root, records what is wrong, and this one is given
    /// up.
    Verity,
    /// Recovery starts.
    Recovery,
    /// dm-verity stops the slot again and again; recovery starts, reads the root and records what is wrong.
    VerityRecovery,
    /// It depends on the piece that is hit.
    AsThePiece,
    /// Nothing can be written down: at each start another of those that verify, so that none is started for ever.
    InTurn,
    /// Firmware decides: it starts the loader of the other ESP. Nothing here looks at an ESP.
    Firmware,
    /// The kernel and e2fsck decide, when `state` is mounted. Nothing here looks at it before.
    Kernel,
    /// Firmware that insists on a protective MBR finds nothing; where it does not, the same slot starts and the region
    /// is whole again.
    Insists,
    /// Nothing starts; a person has to write the disk.
    Nothing,
}

impl Outcome {
    /// As in the printed table.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "–",
            Self::Same => "same slot",
            Self::Mended => "same slot, mended",
            Self::Rebuilt => "same slot, record anew",
            Self::Earlier => "slot before",
            Self::Other => "other slot",
            Self::Verity => "verity, other slot",
            Self::Recovery => "recovery",
            Self::VerityRecovery => "verity, recovery",
            Self::AsThePiece => "as the piece",
            Self::InTurn => "each in turn",
            Self::Firmware => "firmware: other ESP",
            Self::Kernel => "kernel",
            Self::Insists => "firmware or mended",
            Self::Nothing => "nothing",
        }
    }
}

use Outcome::{
    AsThePiece as P, Earlier as E, Firmware as F, InTurn as T, Insists as I, Kernel as K,
    Mended as M, None as X, Nothing as N, Other as O, Rebuilt as B, Recovery as R, Same as S,
    Verity as V, VerityRecovery as W,
};
use Region::{
    BackupEntries, BackupHeader, BackupTable, BootStateEntry, EspA, EspB, EventRing, MbrCode,
    MbrEntry, PrimaryEntries, PrimaryHeader, PrimaryTable, QuarantineRing, RecordBoth,
    RecordNewest, RecordNumber, RecordNumbers, RecordOther, RingNumbers, StateJournal,
    StateSuperblock,
};

const fn first(piece: Piece) -> Region {
    Region::Slot(Role::First, piece)
}

const fn other(piece: Piece) -> Region {
    Region::Slot(Role::Other, piece)
}

const fn recovery(piece: Piece) -> Region {
    Region::Recovery(piece)
}

/// A region, and for each damage what comes of it.
pub(super) type Row = (Region, [Outcome; 8]);

/// What is to come of every damage to every region.
#[rustfmt::skip]
pub(super) const EXPECTED: [(Situation, &[Row]); 3] = [
    (Situation::BothGood, &[
        //                          flipped zeros random truncated stale misplaced swapped unreadable
        (MbrCode,                   [S,     X,    S,     X,        X,    X,        X,       I]),
        (MbrEntry,                  [I,     I,    I,     I,        X,    X,        X,       I]),
        (PrimaryHeader,             [M,     M,    M,     M,        M,    M,        N,       M]),
        (PrimaryEntries,            [M,     M,    M,     M,        M,    X,        X,       M]),
        (PrimaryTable,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupEntries,             [M,     M,    M,     M,        M,    X,        X,       M]),
        (BackupHeader,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupTable,               [M,     M,    M,     M,        M,    M,        N,       M]),
        (BootStateEntry,            [X,     T,    X,     X,        X,    T,        X,       X]),
        (EspA,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (EspB,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (RecordNewest,              [M,     M,    M,     M,        M,    M,        M,       M]),
        (RecordOther,               [M,     M,    M,     M,        M,    M,        M,       M]),
        (RecordBoth,                [B,     B,    B,     B,        B,    M,        M,       B]),
        (EventRing,                 [S,     S,    S,     S,        S,    X,        X,       S]),
        (QuarantineRing,            [S,     S,    S,     S,        X,    X,        X,       S]),
        (RecordNumber,              [X,     X,    M,     X,        X,    X,        X,       X]),
        (RecordNumbers,             [X,     X,    B,     X,        X,    X,        X,       X]),
        (RingNumbers,               [X,     X,    S,     X,        X,    X,        X,       X]),
        (first(Piece::Header),      [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Envelope),    [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Manifest),    [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Keyring),     [O,     O,    O,     O,        X,    X,        X,       O]),
        (first(Piece::Uki),         [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Root),        [V,     V,    V,     V,        V,    V,        W,       V]),
        (first(Piece::Tree),        [V,     V,    V,     V,        V,    V,        W,       V]),
        (first(Piece::Whole),       [P,     O,    O,     P,        O,    O,        R,       P]),
        (other(Piece::Header),      [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Envelope),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Manifest),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Keyring),     [S,     S,    S,     S,        X,    X,        X,       S]),
        (other(Piece::Uki),         [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Root),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Tree),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Whole),       [S,     S,    S,     S,        S,    S,        R,       S]),
        (recovery(Piece::Header),   [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Envelope), [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Manifest), [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Keyring),  [S,     S,    S,     S,        X,    X,        X,       S]),
        (recovery(Piece::Uki),      [S,     S,    S,     S,        X,    S,        O,       S]),
        (StateSuperblock,           [K,     K,    K,     K,        X,    X,        X,       K]),
        (StateJournal,              [K,     K,    K,     K,        X,    X,        X,       K]),
    ]),
    (Situation::OnTrial, &[
        //                          flipped zeros random truncated stale misplaced swapped unreadable
        (MbrCode,                   [S,     X,    S,     X,        X,    X,        X,       I]),
        (MbrEntry,                  [I,     I,    I,     I,        X,    X,        X,       I]),
        (PrimaryHeader,             [M,     M,    M,     M,        M,    M,        N,       M]),
        (PrimaryEntries,            [M,     M,    M,     M,        M,    X,        X,       M]),
        (PrimaryTable,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupEntries,             [M,     M,    M,     M,        M,    X,        X,       M]),
        (BackupHeader,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupTable,               [M,     M,    M,     M,        M,    M,        N,       M]),
        (BootStateEntry,            [X,     T,    X,     X,        X,    T,        X,       X]),
        (EspA,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (EspB,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (RecordNewest,              [E,     E,    E,     E,        E,    E,        M,       E]),
        (RecordOther,               [M,     M,    M,     M,        M,    M,        M,       M]),
        (RecordBoth,                [B,     B,    B,     B,        E,    M,        M,       B]),
        (EventRing,                 [S,     S,    S,     S,        S,    X,        X,       S]),
        (QuarantineRing,            [S,     S,    S,     S,        X,    X,        X,       S]),
        (RecordNumber,              [X,     X,    E,     X,        X,    X,        X,       X]),
        (RecordNumbers,             [X,     X,    B,     X,        X,    X,        X,       X]),
        (RingNumbers,               [X,     X,    S,     X,        X,    X,        X,       X]),
        (first(Piece::Header),      [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Envelope),    [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Manifest),    [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Keyring),     [O,     O,    O,     O,        X,    X,        X,       O]),
        (first(Piece::Uki),         [O,     O,    O,     O,        O,    O,        R,       O]),
        (first(Piece::Root),        [V,     V,    V,     V,        V,    V,        W,       V]),
        (first(Piece::Tree),        [V,     V,    V,     V,        V,    V,        W,       V]),
        (first(Piece::Whole),       [P,     O,    O,     P,        O,    O,        R,       P]),
        (other(Piece::Header),      [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Envelope),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Manifest),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Keyring),     [S,     S,    S,     S,        X,    X,        X,       S]),
        (other(Piece::Uki),         [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Root),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Tree),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Whole),       [S,     S,    S,     S,        S,    S,        R,       S]),
        (recovery(Piece::Header),   [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Envelope), [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Manifest), [S,     S,    S,     S,        X,    S,        O,       S]),
        (recovery(Piece::Keyring),  [S,     S,    S,     S,        X,    X,        X,       S]),
        (recovery(Piece::Uki),      [S,     S,    S,     S,        X,    S,        O,       S]),
        (StateSuperblock,           [K,     K,    K,     K,        X,    X,        X,       K]),
        (StateJournal,              [K,     K,    K,     K,        X,    X,        X,       K]),
    ]),
    (Situation::Alone, &[
        //                          flipped zeros random truncated stale misplaced swapped unreadable
        (MbrCode,                   [S,     X,    S,     X,        X,    X,        X,       I]),
        (MbrEntry,                  [I,     I,    I,     I,        X,    X,        X,       I]),
        (PrimaryHeader,             [M,     M,    M,     M,        M,    M,        N,       M]),
        (PrimaryEntries,            [M,     M,    M,     M,        M,    X,        X,       M]),
        (PrimaryTable,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupEntries,             [M,     M,    M,     M,        M,    X,        X,       M]),
        (BackupHeader,              [M,     M,    M,     M,        M,    M,        N,       M]),
        (BackupTable,               [M,     M,    M,     M,        M,    M,        N,       M]),
        (BootStateEntry,            [X,     T,    X,     X,        X,    T,        X,       X]),
        (EspA,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (EspB,                      [F,     F,    F,     F,        X,    X,        X,       F]),
        (RecordNewest,              [M,     M,    M,     M,        M,    M,        M,       M]),
        (RecordOther,               [M,     M,    M,     M,        M,    M,        M,       M]),
        (RecordBoth,                [B,     B,    B,     B,        B,    M,        M,       B]),
        (EventRing,                 [S,     S,    S,     S,        S,    X,        X,       S]),
        (QuarantineRing,            [S,     S,    S,     S,        X,    X,        X,       S]),
        (RecordNumber,              [X,     X,    M,     X,        X,    X,        X,       X]),
        (RecordNumbers,             [X,     X,    B,     X,        X,    X,        X,       X]),
        (RingNumbers,               [X,     X,    S,     X,        X,    X,        X,       X]),
        (first(Piece::Header),      [R,     R,    R,     R,        R,    R,        R,       R]),
        (first(Piece::Envelope),    [R,     R,    R,     R,        R,    R,        R,       R]),
        (first(Piece::Manifest),    [R,     R,    R,     R,        R,    R,        R,       R]),
        (first(Piece::Keyring),     [R,     R,    R,     R,        X,    X,        X,       R]),
        (first(Piece::Uki),         [R,     R,    R,     R,        R,    R,        R,       R]),
        (first(Piece::Root),        [W,     W,    W,     W,        W,    W,        W,       W]),
        (first(Piece::Tree),        [W,     W,    W,     W,        W,    W,        W,       W]),
        (first(Piece::Whole),       [P,     R,    R,     P,        B,    R,        R,       P]),
        (other(Piece::Header),      [S,     X,    S,     X,        S,    S,        R,       S]),
        (other(Piece::Envelope),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Manifest),    [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Keyring),     [S,     S,    S,     S,        X,    X,        X,       S]),
        (other(Piece::Uki),         [S,     S,    S,     S,        S,    S,        R,       S]),
        (other(Piece::Root),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Tree),        [S,     S,    S,     S,        S,    S,        W,       S]),
        (other(Piece::Whole),       [S,     S,    S,     S,        S,    S,        R,       S]),
        (recovery(Piece::Header),   [S,     S,    S,     S,        X,    S,        N,       S]),
        (recovery(Piece::Envelope), [S,     S,    S,     S,        X,    S,        N,       S]),
        (recovery(Piece::Manifest), [S,     S,    S,     S,        X,    S,        N,       S]),
        (recovery(Piece::Keyring),  [S,     S,    S,     S,        X,    X,        X,       S]),
        (recovery(Piece::Uki),      [S,     S,    S,     S,        X,    S,        N,       S]),
        (StateSuperblock,           [K,     K,    K,     K,        X,    X,        X,       K]),
        (StateJournal,              [K,     K,    K,     K,        X,    X,        X,       K]),
    ]),
];

/// One way to damage one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The machine.
    pub(super) situation: Situation,
    /// What is damaged.
    pub(super) region: Region,
    pub(super) damage: Damage,
    /// What is to come of it.
    pub(super) expected: Outcome,
}

/// Every cell of the table.
pub(super) fn cells() -> impl Iterator<Item = Cell> {
    EXPECTED.into_iter().flat_map(|(situation, rows)| {
        rows.iter().flat_map(move |(region, outcomes)| {
            let region = *region;
            Damage::ALL
                .into_iter()
                .zip(*outcomes)
                .map(move |(damage, expected)| Cell {
                    situation,
                    region,
                    damage,
                    expected,
                })
        })
    })
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothGood => "both-good",
            Self::OnTrial => "on-trial",
            Self::Alone => "alone",
        })
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Envelope => "envelope",
            Self::Manifest => "manifest",
            Self::Keyring => "keyring",
            Self::Uki => "uki",
            Self::Root => "root",
            Self::Tree => "verity-tree",
            Self::Whole => "all",
        })
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            MbrCode => "mbr-code",
            MbrEntry => "mbr-entry",
            PrimaryHeader => "primary-header",
            PrimaryEntries => "primary-entries",
            PrimaryTable => "primary-table",
            BackupEntries => "backup-entries",
            BackupHeader => "backup-header",
            BackupTable => "backup-table",
            BootStateEntry => "boot-state-entry",
            EspA => "esp-a",
            EspB => "esp-b",
            RecordNewest => "record-newest",
            RecordOther => "record-other",
            RecordBoth => "record-both",
            EventRing => "event-ring",
            QuarantineRing => "quarantine-ring",
            RecordNumber => "record-number",
            RecordNumbers => "record-numbers",
            RingNumbers => "ring-numbers",
            Self::Slot(Role::First, piece) => return write!(f, "first-slot-{piece}"),
            Self::Slot(Role::Other, piece) => return write!(f, "other-slot-{piece}"),
            Self::Recovery(piece) => return write!(f, "recovery-{piece}"),
            StateSuperblock => "state-superblock",
            StateJournal => "state-journal",
        };
        f.write_str(name)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            situation,
            region,
            damage,
            ..
        } = self;
        write!(f, "{situation}/{region}/{}", damage.name())
    }
}

/// The table in Markdown, as it stands in docs/reliability.md: of the machines after the first, the rows that differ.
pub(super) fn markdown() -> String {
    let mut text = String::new();
    for (situation, rows) in EXPECTED {
        let _ = write!(text, "| `{situation}`");
        for damage in Damage::ALL {
            let _ = write!(text, " | {}", damage.name());
        }
        text.push_str(" |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        let (_, first) = EXPECTED[0];
        let differ = |row: &&Row| situation == Situation::BothGood || !first.contains(row);
        for (region, outcomes) in rows.iter().filter(differ) {
            let _ = write!(text, "| `{region}`");
            for outcome in outcomes {
                let _ = write!(text, " | {}", outcome.words());
            }
            text.push_str(" |\n");
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}
