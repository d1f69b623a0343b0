//! A machine's disk: a throwaway copy of a built image, and ways to damage it while the machine is off.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use boot_core::Device;

/// A raw disk image that a scenario may do with what it likes.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    sector_size: u32,
}

impl Disk {
    /// The raw image at `path`, as it is.
    #[must_use]
    pub fn open(path: &Path, sector_size: u32) -> Disk {
        Disk {
            path: path.to_owned(),
            sector_size,
        }
    }

    /// A copy of `image` at `path`: shared blocks where the file system can, holes where not.
    ///
    /// # Errors
    /// The copy fails.
    pub fn copy(image: &Path, path: &Path, sector_size: u32) -> Result<Disk> {
        let status = Command::new("cp")
            .args(["--reflink=auto", "--sparse=always", "--"])
            .args([image, path])
            .status()
            .context("cannot run cp")?;
        if !status.success() {
            bail!("cannot copy {} to {}", image.display(), path.display());
        }
        Ok(Disk::open(path, sector_size))
    }

    /// The image file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in a logical sector.
    #[must_use]
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Makes the disk larger, as a machine's disk is larger than the image.
    ///
    /// # Errors
    /// The file cannot be extended.
    pub fn grow(&self, bytes: u64) -> Result<()> {
        let file = self.file()?;
        if file.metadata()?.len() > bytes {
            bail!(
                "{} is larger than {bytes} bytes already",
                self.path.display()
            );
        }
        file.set_len(bytes)
            .with_context(|| format!("cannot extend {}", self.path.display()))
    }

    /// The partition with this label.
    ///
    /// # Errors
    /// The table does not check or has no such label.
    pub fn partition(&self, label: &str) -> Result<Partition> {
        let (start, size) = self.bounds(label)?;
        Ok(Partition {
            file: self.file()?,
            name: format!("{label} of {}", self.path.display()),
            start,
            size,
            sector_size: self.sector_size,
        })
    }

    /// First byte and length of a partition.
    ///
    /// # Errors
    /// The table does not check or has no such label.
    pub fn bounds(&self, label: &str) -> Result<(u64, u64)> {
        let table = self.table(false)?;
        let sectors = *table.logical_block_size();
        let (_, partition) = self.entry(&table, label)?;
        let start = partition.bytes_start(sectors)?;
        Ok((start, partition.bytes_len(sectors)?))
    }

    /// That other implementations find no fault: both copies of the table are valid, and e2fsck has nothing to say of
    /// `state`, which has been unmounted.
    ///
    /// # Errors
    /// What is wrong.
    pub fn expect_sound(&self) -> Result<()> {
        let table = self.table(false)?;
        if table.primary_header().is_err() || table.backup_header().is_err() {
            bail!(
                "a copy of the table of {} is not valid",
                self.path.display()
            );
        }
        let (start, _) = self.bounds("state")?;
        let found = Command::new("e2fsck")
            .env("PATH", path_with_sbin())
            .args(["-f", "-n"])
            .arg(format!("{}?offset={start}", self.path.display()))
            .output()
            .context("cannot run e2fsck")?;
        if !found.status.success() {
            let said = String::from_utf8_lossy(&found.stdout).into_owned();
            bail!("state of {}:\n{said}", self.path.display());
        }
        Ok(())
    }

    /// Takes a partition out of both copies of the table. What is in it stays where it is, as the others do.
    ///
    /// # Errors
    /// The table does not check or has no such label, or cannot be written.
    pub fn take_out(&self, label: &str) -> Result<Table> {
        let (primary, backup) = self.table_places()?;
        let before = Table {
            primary: self.read(&primary)?,
            backup: self.read(&backup)?,
        };
        let mut table = self.table(true)?;
        let (number, _) = self.entry(&table, label)?;
        table.remove_partition(number);
        table
            .write()
            .with_context(|| format!("cannot write the table of {}", self.path.display()))?;
        Ok(before)
    }

    /// Makes the table what it was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_back(&self, table: &Table) -> Result<()> {
        let (primary, backup) = self.table_places()?;
        self.overwrite(primary.start, &table.primary)?;
        self.overwrite(backup.start, &table.backup)
    }

    /// Where both copies of a table of 128 entries are, the protective MBR with the first.
    fn table_places(&self) -> Result<(Range<u64>, Range<u64>)> {
        let sector = u64::from(self.sector_size);
        let size = self.file()?.metadata()?.len();
        let entries = 128 * 128;
        Ok((0..2 * sector + entries, size - sector - entries..size))
    }

    fn table(&self, writable: bool) -> Result<gpt::GptDisk<File>> {
        let sectors = match self.sector_size {
            512 => gpt::disk::LogicalBlockSize::Lb512,
            4096 => gpt::disk::LogicalBlockSize::Lb4096,
            other => bail!("no disk has sectors of {other} bytes"),
        };
        gpt::GptConfig::new()
            .logical_block_size(sectors)
            .writable(writable)
            .open(&self.path)
            .with_context(|| format!("{} has no partition table", self.path.display()))
    }

    fn entry<'t>(
        &self,
        table: &'t gpt::GptDisk<File>,
        label: &str,
    ) -> Result<(u32, &'t gpt::partition::Partition)> {
        let found = table.partitions().iter().find(|(_, it)| it.name == label);
        found
            .map(|(number, partition)| (*number, partition))
            .ok_or_else(|| anyhow!("{} has no partition {label}", self.path.display()))
    }

    fn read(&self, place: &Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (place.end - place.start) as usize];
        self.file()?
            .read_exact_at(&mut bytes, place.start)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(bytes)
    }

    /// Flips one bit: the lowest of the byte at `offset` in the partition.
    ///
    /// # Errors
    /// There is no such byte.
    pub fn flip_bit(&self, label: &str, offset: u64) -> Result<()> {
        self.flip(label, offset, 0)
    }

    /// Flips one bit, whichever chance says, of the bytes at `place` in the partition, and tells which.
    ///
    /// # Errors
    /// There are no such bytes.
    pub fn flip_any_bit(
        &self,
        label: &str,
        place: Range<u64>,
        chance: &mut fastrand::Rng,
    ) -> Result<()> {
        let (offset, bit) = (chance.u64(place), chance.u8(0..8));
        eprintln!("{label}: bit {bit} of byte {offset} flips");
        self.flip(label, offset, bit)
    }

    fn flip(&self, label: &str, offset: u64, bit: u8) -> Result<()> {
        let partition = self.partition(label)?;
        let mut byte = [0];
        partition.read(offset, &mut byte)?;
        byte[0] ^= 1 << bit;
        partition.write(offset, &byte)
    }

    /// Overwrites `length` bytes of a partition with zeros.
    ///
    /// # Errors
    /// They are not all in the partition.
    pub fn zero(&self, label: &str, offset: u64, length: u64) -> Result<()> {
        let partition = self.partition(label)?;
        let chunk = vec![0; 1 << 20];
        let mut done = 0;
        while done < length {
            let part = (length - done).min(chunk.len() as u64);
            partition.write(offset + done, &chunk[..part as usize])?;
            done += part;
        }
        Ok(())
    }

    /// Overwrites bytes of the disk that lie in no partition.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file()?
            .write_all_at(bytes, offset)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Overwrites the start of one partition with the start of another.
    ///
    /// # Errors
    /// Either has fewer than `length` bytes.
    pub fn copy_partition(&self, from: &str, to: &str, length: u64) -> Result<()> {
        let (source, target) = (self.partition(from)?, self.partition(to)?);
        let mut chunk = vec![0; 1 << 20];
        let mut done = 0;
        while done < length {
            let part = (length - done).min(chunk.len() as u64) as usize;
            source.read(done, &mut chunk[..part])?;
            target.write(done, &chunk[..part])?;
            done += part as u64;
        }
        Ok(())
    }

    fn file(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))
    }
}

/// Where Debian puts what only root needs, most of the time.
fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Both copies of a partition table.
#[derive(Debug)]
pub struct Table {
    primary: Vec<u8>,
    backup: Vec<u8>,
}

/// A partition of an image file.
#[derive(Debug)]
pub struct Partition {
    file: File,
    name: String,
    start: u64,
    size: u64,
    sector_size: u32,
}

impl Partition {
    /// Reads bytes at any offset.
    ///
    /// # Errors
    /// They are not all in the partition.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check(offset, buffer.len())?;
        self.file
            .read_exact_at(buffer, self.start + offset)
            .with_context(|| format!("cannot read {}", self.name))
    }

    /// Writes bytes at any offset.
    ///
    /// # Errors
    /// They do not all fit into the partition.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        self.file
            .write_all_at(bytes, self.start + offset)
            .with_context(|| format!("cannot write {}", self.name))
    }

    fn check(&self, offset: u64, length: usize) -> Result<()> {
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.size)
        {
            bail!(
                "{length} bytes at {offset} are not within {} ({} bytes)",
                self.name,
                self.size
            );
        }
        Ok(())
    }
}

/// What went wrong on an image file.
#[derive(Debug)]
pub struct DiskError(anyhow::Error);

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Device for Partition {
    type Error = DiskError;

    fn block_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.read(offset, buf).map_err(DiskError)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.write(offset, buf).map_err(DiskError)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(|error| DiskError(error.into()))
    }
}
