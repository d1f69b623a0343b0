//! dm-verity by ioctl.
//!
//! Three commands on /dev/mapper/control: create the device, load its table, resume it. [`table_line`] is pure.
//! Source: the kernel's `include/uapi/linux/dm-ioctl.h` and `Documentation/admin-guide/device-mapper/verity.rst`.

use std::fs::OpenOptions;

use boot_core::RootHash;
use boot_core::types::Salt;

use crate::failure::{Context, Failure};
use crate::sys;

const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READ_ONLY: u32 = 1;
const CONTROL: &str = "/dev/mapper/control";
/// dm-verity's blocks, of data and of the tree.
pub const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

/// What a verified device is made from. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The partition, as `major:minor` or a path.
    pub device: String,
    /// Length of the data; the tree follows it.
    pub data_size: u64,
    /// What the tree must come to.
    pub root_hash: RootHash,
    /// What every block is hashed with.
    pub salt: Salt,
}

/// The parameters of the table's only line. Corruption and read errors restart the machine; the service then reads
/// the whole root after such an end, and gives up a slot that is damaged.
#[must_use]
pub fn table_line(verity: &Verity) -> String {
    let blocks = verity.data_size / BLOCK;
    format!(
        "1 {dev} {dev} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {hash} {salt} 2 restart_on_corruption restart_on_error",
        dev = verity.device,
        hash = verity.root_hash,
        salt = verity.salt,
    )
}

/// A `struct dm_ioctl` for the device `name`; 4.0.0 is the interface that every kernel since 2.6 speaks.
fn header(name: &str, flags: u32, targets: u32) -> Vec<u8> {
    let mut message = vec![0; sys::DM_HEADER];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in message.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &4u32.to_ne_bytes());
    put(16, &(sys::DM_HEADER as u32).to_ne_bytes());
    put(20, &targets.to_ne_bytes());
    put(28, &flags.to_ne_bytes());
    // 128 bytes with a zero at the end.
    put(48, name.as_bytes().get(..127).unwrap_or(name.as_bytes()));
    message
}

/// A `struct dm_target_spec` and its parameters.
fn target(sectors: u64, kind: &str, parameters: &str) -> Vec<u8> {
    let mut spec = Vec::new();
    spec.extend_from_slice(&0u64.to_ne_bytes());
    spec.extend_from_slice(&sectors.to_ne_bytes());
    spec.extend_from_slice(&0i32.to_ne_bytes());
    let length = (40 + parameters.len() + 1).next_multiple_of(8);
    spec.extend_from_slice(&(length as u32).to_ne_bytes());
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(kind.bytes().take(15)) {
        *to = from;
    }
    spec.extend_from_slice(&name);
    spec.extend_from_slice(parameters.as_bytes());
    spec.resize(length, 0);
    spec
}

/// The kernel's number for a device, as it answers in `dev` (huge encoding), to minor.
fn minor(message: &[u8]) -> Option<u64> {
    let bytes: [u8; 8] = message.get(40..48)?.try_into().ok()?;
    let dev = u64::from_ne_bytes(bytes);
    Some((dev & 0xff) | ((dev >> 12) & 0xfff_ff00))
}

/// Opens a verified device and returns its path.
///
/// # Errors
/// When the kernel refuses: no dm-verity, a table that does not fit the partition, a root hash that does not match
/// shows only when blocks are read.
pub fn open(name: &str, verity: &Verity) -> Result<String, Failure> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .context("opening", CONTROL)?;
    let mut message = header(name, READ_ONLY, 0);
    sys::device_mapper(&control, DEV_CREATE, &mut message)
        .context("creating the verified device", name)?;
    let path =
        minor(&message).map_or_else(|| format!("/dev/mapper/{name}"), |n| format!("/dev/dm-{n}"));

    let mut message = header(name, READ_ONLY, 1);
    message.extend(target(
        verity.data_size / SECTOR,
        "verity",
        &table_line(verity),
    ));
    sys::device_mapper(&control, TABLE_LOAD, &mut message)
        .context("loading dm-verity's table over", &verity.device)?;
    // Without the flag DM_SUSPEND this resumes.
    let mut message = header(name, READ_ONLY, 0);
    sys::device_mapper(&control, DEV_SUSPEND, &mut message)
        .context("starting the verified device", &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_tree_behind_the_data() {
        let verity = Verity {
            device: "254:7".into(),
            data_size: 8192,
            root_hash: RootHash([0xaa; 32]),
            salt: Salt([0xbb; 32]),
        };
        assert_eq!(
            table_line(&verity),
            format!(
                "1 254:7 254:7 4096 4096 2 2 sha256 {} {} 2 restart_on_corruption restart_on_error",
                "aa".repeat(32),
                "bb".repeat(32)
            )
        );
    }

    #[test]
    fn messages_have_the_kernels_shape() {
        let message = header("root", READ_ONLY, 1);
        assert_eq!(message.len(), 312);
        assert_eq!(&message[48..53], b"root\0");
        let spec = target(16, "verity", "1 a");
        assert_eq!(spec.len() % 8, 0);
        assert_eq!(&spec[24..31], b"verity\0");
        assert_eq!(&spec[40..44], b"1 a\0");
    }

    #[test]
    fn minor_reads_the_huge_encoding() {
        let mut message = header("root", 0, 0);
        message[40..48].copy_from_slice(&((254u64 << 8) | 3).to_ne_bytes());
        assert_eq!(minor(&message), Some(3));
    }
}
