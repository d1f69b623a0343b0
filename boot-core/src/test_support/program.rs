//! UEFI applications as far as their headers.

use alloc::{vec, vec::Vec};

use crate::{pe::seal, types::Architecture};

/// A UEFI application without code, whose section `.sptrust` holds `trust`.
pub fn program(architecture: Architecture, trust: &[u8]) -> Vec<u8> {
    const HEADER: usize = 0x40;
    const OPTIONAL: usize = 240;
    let table = HEADER + 24 + OPTIONAL;
    let start = table + 40;
    let machine: u16 = match architecture {
        Architecture::X86_64 => 0x8664,
        Architecture::Aarch64 => 0xaa64,
    };
    let mut bytes = vec![0; start];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &(HEADER as u32).to_le_bytes());
    put(HEADER, b"PE\0\0");
    put(HEADER + 4, &machine.to_le_bytes());
    put(HEADER + 6, &1_u16.to_le_bytes());
    put(HEADER + 20, &(OPTIONAL as u16).to_le_bytes());
    put(HEADER + 24, &0x20b_u16.to_le_bytes());
    put(HEADER + 24 + 68, &10_u16.to_le_bytes());
    put(table, b".sptrust");
    put(table + 16, &(trust.len() as u32).to_le_bytes());
    put(table + 20, &(start as u32).to_le_bytes());
    bytes.extend_from_slice(trust);
    seal(&mut bytes);
    bytes
}
