//! The system calls that have no safe wrapper: block device, device-mapper, loop, ext4 and watchdog ioctls.
//!
//! The only module of the crate with `unsafe` in it. Numbers and structures are the kernel's
//! (`include/uapi/linux/{fs,blkpg,dm-ioctl,loop,ext4,watchdog}.h`); they are the same on x86_64 and aarch64.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::ioctl::{
    Getter, IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, opcode,
};

/// Operation of [`partition_resize`].
const BLKPG_RESIZE_PARTITION: i32 = 3;
const BLKPG: Opcode = opcode::none(0x12, 105);
const BLKRRPART: Opcode = opcode::none(0x12, 95);
const EXT4_RESIZE_FS: Opcode = opcode::write::<u64>(b'f', 16);
const LOOP_SET_FD: Opcode = 0x4C00;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const WDIOC_SETTIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
const WDIOC_GETTIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);
const WDIOC_KEEPALIVE: Opcode = opcode::read::<i32>(b'W', 5);

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut c_void,
}

/// Tells the kernel the new size of a partition of the disk `disk`. Offsets and sizes in bytes.
///
/// # Errors
/// What the kernel says: the partition does not exist, or overlaps another.
pub fn partition_resize(
    disk: BorrowedFd<'_>,
    number: u32,
    start: u64,
    size: u64,
) -> Result<(), Errno> {
    let mut partition = BlkpgPartition {
        start: i64::try_from(start).map_err(|_| Errno::OVERFLOW)?,
        length: i64::try_from(size).map_err(|_| Errno::OVERFLOW)?,
        number: i32::try_from(number).map_err(|_| Errno::OVERFLOW)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        length: size_of::<BlkpgPartition>() as i32,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: BLKPG takes a `struct blkpg_ioctl_arg`; its `data` points to `partition`, which lives until after the
    // call and has the size given.
    unsafe { rustix::ioctl::ioctl(disk, Setter::<BLKPG, _>::new(argument)) }
}

/// Makes the kernel read the partition table of a disk again.
///
/// # Errors
/// What the kernel says; a partition in use is one reason.
pub fn reread_partitions(disk: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: BLKRRPART has no argument.
    unsafe { rustix::ioctl::ioctl(disk, NoArg::<BLKRRPART>::new()) }
}

/// Grows the mounted ext4 that `mount_point` is open on to `blocks` of its blocks.
pub fn ext4_resize(mount_point: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64.
    unsafe { rustix::ioctl::ioctl(mount_point, Setter::<EXT4_RESIZE_FS, u64>::new(blocks)) }
}

/// Sets the time after which the watchdog bites; returns what the driver made of it. Both in seconds.
///
/// # Errors
/// What the driver says; some have a fixed time.
pub fn watchdog_timeout(watchdog: BorrowedFd<'_>, seconds: i32) -> Result<i32, Errno> {
    let mut value = seconds;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
    unsafe {
        rustix::ioctl::ioctl(watchdog, Updater::<WDIOC_SETTIMEOUT, i32>::new(&mut value))?;
    }
    Ok(value)
}

/// The time after which the watchdog bites, in seconds.
pub fn watchdog_current_timeout(watchdog: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: WDIOC_GETTIMEOUT writes one int.
    unsafe { rustix::ioctl::ioctl(watchdog, Getter::<WDIOC_GETTIMEOUT, i32>::new()) }
}

/// Starts the watchdog's time again.
pub fn watchdog_ping(watchdog: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: WDIOC_KEEPALIVE ignores its argument.
    unsafe { rustix::ioctl::ioctl(watchdog, NoArg::<WDIOC_KEEPALIVE>::new()) }
}

/// LOOP_CTL_GET_FREE returns the number as the call's result.
struct FreeLoop;

// SAFETY: LOOP_CTL_GET_FREE has no argument and returns a number that is not negative, or an error.
unsafe impl Ioctl for FreeLoop {
    type Output = i32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }
    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }
    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<i32, Errno> {
        Ok(out)
    }
}

/// Number of a loop device that is free.
pub fn loop_free(control: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: `FreeLoop` describes the call.
    unsafe { rustix::ioctl::ioctl(control, FreeLoop) }
}

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// LO_FLAGS_READ_ONLY.
const LOOP_FLAGS: u32 = 1;

/// Puts `file` behind the loop device `device`, read-only, for as long as the machine runs.
pub fn loop_attach(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let number = usize::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: LOOP_SET_FD takes the number of an open file as its argument, and `file` is one.
    unsafe {
        rustix::ioctl::ioctl(device, IntegerSetter::<LOOP_SET_FD>::new_usize(number))?;
    }
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LOOP_FLAGS,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    // SAFETY: LOOP_SET_STATUS64 reads a `struct loop_info64`.
    unsafe { rustix::ioctl::ioctl(device, Setter::<LOOP_SET_STATUS64, LoopInfo>::new(info)) }
}

/// Size of `struct dm_ioctl`.
pub const DM_HEADER: usize = 312;

/// A device-mapper ioctl over a buffer that starts with a `struct dm_ioctl`.
struct DeviceMapper<'a> {
    opcode: Opcode,
    buffer: &'a mut [u64],
}

// SAFETY: `device_mapper` has made sure that the buffer holds a `struct dm_ioctl` whose `data_size` is the length of the
// buffer, which is all that the kernel reads and writes.
unsafe impl Ioctl for DeviceMapper<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        self.opcode
    }
    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }
    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

/// Command `number` of the device mapper. `message` is a `struct dm_ioctl` and what follows it; the kernel's answer
/// replaces it. The field `data_size` is filled in here.
///
/// # Errors
/// What the kernel says; [`Errno::INVAL`] for a message shorter than its header.
pub fn device_mapper(control: impl AsFd, number: u8, message: &mut Vec<u8>) -> Result<(), Errno> {
    if message.len() < DM_HEADER {
        return Err(Errno::INVAL);
    }
    message.resize(message.len().next_multiple_of(8), 0);
    let size = u32::try_from(message.len()).map_err(|_| Errno::OVERFLOW)?;
    if let Some(field) = message.get_mut(12..16) {
        field.copy_from_slice(&size.to_ne_bytes());
    }
    let mut buffer: Vec<u64> = message
        .chunks_exact(8)
        .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()))
        .collect();
    let call = DeviceMapper {
        opcode: opcode::read_write::<[u8; DM_HEADER]>(0xfd, number),
        buffer: &mut buffer,
    };
    // SAFETY: the buffer is aligned for `struct dm_ioctl`, longer than it, and its `data_size` is its length.
    unsafe { rustix::ioctl::ioctl(control, call)? };
    *message = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(())
}
