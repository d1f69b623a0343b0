//! ACPI tables: from the root pointer to one table's bytes (ACPI 6.5, section 5.2).
//!
//! Memory is somebody else's: each function takes bytes and says which address to read next.

use alloc::vec::Vec;

use super::{Place, Unusable};

/// Bytes of the root pointer of ACPI 2.
pub const ROOT_POINTER: usize = 36;
/// Bytes of a table's header.
pub const HEADER: usize = 36;
/// Longer tables are not read: those that describe a timer have some hundred bytes.
pub const TABLE_MAX: usize = 64 * 1024;

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Result<u8, Unusable> {
    bytes.get(at).copied().ok_or(Unusable::Truncated)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Unusable> {
    chunk(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Unusable> {
    chunk(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Unusable> {
    chunk(bytes, at).map(u64::from_le_bytes)
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Unusable> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(Unusable::Truncated)
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// Address of the extended root table, from the root pointer's bytes.
///
/// # Errors
/// They are no root pointer of ACPI 2 or later.
pub fn root_table(pointer: &[u8]) -> Result<u64, Unusable> {
    let pointer = pointer.get(..ROOT_POINTER).ok_or(Unusable::Truncated)?;
    if !pointer.starts_with(b"RSD PTR ") || u8_at(pointer, 15)? < 2 || !sums_to_zero(pointer) {
        return Err(Unusable::Nonsense("the root pointer"));
    }
    address(u64_at(pointer, 24)?)
}

/// Length of the table whose header is `header`.
pub fn length(header: &[u8]) -> Result<usize, Unusable> {
    usize::try_from(u32_at(header, 4)?)
        .ok()
        .filter(|length| (HEADER..=TABLE_MAX).contains(length))
        .ok_or(Unusable::Nonsense("a table's length"))
}

/// Whether `table` is one with this signature, and whole.
pub fn check(table: &[u8], signature: [u8; 4]) -> Result<(), Unusable> {
    if !table.starts_with(&signature) {
        return Err(Unusable::Nonsense("a table's signature"));
    }
    if length(table)? != table.len() {
        return Err(Unusable::Truncated);
    }
    if !sums_to_zero(table) {
        return Err(Unusable::Nonsense("a table's checksum"));
    }
    Ok(())
}

/// Addresses of the tables that the extended root table names.
pub fn tables(root: &[u8]) -> Result<Vec<u64>, Unusable> {
    check(root, *b"XSDT")?;
    Ok(root
        .get(HEADER..)
        .unwrap_or_default()
        .chunks_exact(8)
        .filter_map(|entry| entry.first_chunk())
        .filter_map(|entry| address(u64::from_le_bytes(*entry)).ok())
        .collect())
}

/// The whole of the first table with this signature, from the root pointer at `pointer` on; `read` copies memory.
///
/// # Errors
/// There is none, or what leads to it is damaged.
pub fn find(
    signature: [u8; 4],
    pointer: u64,
    read: impl Fn(u64, usize) -> Result<Vec<u8>, Unusable>,
) -> Result<Vec<u8>, Unusable> {
    let table = |address| read(address, length(&read(address, HEADER)?)?);
    let root = root_table(&read(pointer, ROOT_POINTER)?)?;
    for address in tables(&table(root)?)? {
        if read(address, signature.len())? == signature {
            return table(address);
        }
    }
    Err(Unusable::Absent)
}

/// An address at which something can be: not zero, and not beyond what any processor addresses.
pub(super) fn address(address: u64) -> Result<u64, Unusable> {
    if address == 0 || address >> 52 != 0 {
        return Err(Unusable::Nonsense("an address"));
    }
    Ok(address)
}

/// Where the register of a generic address is: `space` and `at`.
pub(super) fn place(space: u8, at: u64) -> Result<Place, Unusable> {
    match space {
        0 => address(at).map(Place::Memory),
        1 => u16::try_from(at)
            .map(Place::Io)
            .map_err(|_| Unusable::Nonsense("a port above 65535")),
        _ => Err(Unusable::NotByLinux(
            "its registers are neither memory nor ports",
        )),
    }
}

#[cfg(test)]
pub(crate) mod made {
    //! Tables for tests.

    use super::*;

    /// Sets length and checksum of `table`, which begins with a header.
    pub(crate) fn sealed(mut table: Vec<u8>) -> Vec<u8> {
        let length = u32::try_from(table.len()).unwrap();
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table[9] = 0;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = 0u8.wrapping_sub(sum);
        table
    }

    /// A header with this signature, to be [`sealed`] when the table is complete.
    pub(crate) fn header(signature: &[u8; 4]) -> Vec<u8> {
        let mut header = signature.to_vec();
        header.resize(HEADER, 0);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(to: u64) -> Vec<u8> {
        let mut pointer = b"RSD PTR ".to_vec();
        pointer.resize(ROOT_POINTER, 0);
        pointer[15] = 2;
        pointer[24..32].copy_from_slice(&to.to_le_bytes());
        let sum = pointer.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        pointer[32] = 0u8.wrapping_sub(sum);
        pointer
    }

    #[test]
    fn from_the_pointer_to_the_tables() {
        assert_eq!(root_table(&pointer(0x1000)), Ok(0x1000));
        let mut root = made::header(b"XSDT");
        for address in [0x2000u64, 0, 0x3000, u64::MAX] {
            root.extend(address.to_le_bytes());
        }
        let root = made::sealed(root);
        assert_eq!(tables(&root), Ok(alloc::vec![0x2000, 0x3000]));
        assert_eq!(length(&root), Ok(root.len()));
    }

    #[test]
    fn a_table_is_found_by_its_signature() {
        let mut root = made::header(b"XSDT");
        root.extend([0x2000u64, 0x3000].into_iter().flat_map(u64::to_le_bytes));
        let root = made::sealed(root);
        let wanted = made::sealed(made::header(b"WDAT"));
        let memory = [
            (0x500, pointer(0x1000)),
            (0x1000, root),
            (0x2000, made::sealed(made::header(b"FACP"))),
            (0x3000, wanted.clone()),
        ];
        let read = |address: u64, length: usize| {
            let there = memory.iter().find(|(at, _)| *at == address);
            let bytes = there.and_then(|(_, bytes)| bytes.get(..length));
            bytes.map(Vec::from).ok_or(Unusable::Truncated)
        };
        assert_eq!(find(*b"WDAT", 0x500, read), Ok(wanted));
        assert_eq!(find(*b"GTDT", 0x500, read), Err(Unusable::Absent));
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(root_table(b"RSD PTR "), Err(Unusable::Truncated));
        assert!(root_table(&pointer(0)).is_err());
        let root = made::sealed(made::header(b"XSDT"));
        for bit in 0..root.len() * 8 {
            let mut damaged = root.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(tables(&damaged).is_err(), "bit {bit}");
        }
        let mut long = made::header(b"XSDT");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(&long).is_err());
        assert!(length(&[]).is_err());
    }
}
