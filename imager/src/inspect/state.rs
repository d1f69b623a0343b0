//! What a machine left on its `state` (docs/formats/state.md), read without mounting it, as any user: whose it
//! is, which profiles, when its clock was last right, until when its certificates hold. Secrets are not looked at.

use std::error::Error;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64ct::{Base64, Encoding as _};
use boot_core::calendar::unix_seconds;
use boot_core::{Device as _, Digest};
use ext4_view::{Ext4, Ext4Error, Ext4Read, Metadata};
use serde::Serialize;
use serde_json::Value;

use crate::output::image::Region;

/// How long reading may take. What is damaged, or made to be read for ever, is given up then.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The most that is read of a file, and of a directory: everything of ours is far smaller.
const FILE_MAX: u64 = 1 << 20;
const DIRECTORY_MAX: u64 = 16 << 20;
/// The most certificates that are listed, how deep they are looked for, and among how many entries.
const CERTIFICATES_MAX: usize = 200;
const DEPTH_MAX: usize = 12;
const ENTRIES_MAX: usize = 20_000;
/// The most problems that are listed.
const PROBLEMS_MAX: usize = 20;
/// Linux knows no larger blocks (ext4, "Blocks").
const BLOCK_LOG_MAX: u32 = 6;
/// 128 TiB, as mkfs.ext4 makes groups.
const GROUPS_MAX: u64 = 1 << 20;

/// Directories with certificates of the kubelet and of the cluster; what may hold the most comes last.
const WITH_CERTIFICATES: [&str; 3] = ["/var/lib/kubelet/pki", "/epoch", "/shared"];

/// What a `state` holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateReport {
    /// Why nothing is known.
    pub problem: Option<String>,
    /// What could not be read, or was not, beside the rest.
    pub problems: Vec<String>,
    /// owner.json as it stands: the version that was last marked good.
    pub owner: Option<Value>,
    pub host_name: Option<String>,
    pub machine_id: Option<String>,
    pub profiles: Vec<ProfileReport>,
    /// Seconds since 1970: no start of the machine is earlier.
    pub clock: Option<u64>,
    /// Whether the last run ended in a clean shutdown.
    pub ended_cleanly: Option<bool>,
    /// loader-update.json as it stands: an update that is not over.
    pub loader_update: Option<Value>,
    /// By path.
    pub certificates: Vec<CertificateReport>,
}

/// A profile; what is in it may be secret.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileReport {
    pub file: &'static str,
    pub sha256: Digest,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateReport {
    pub path: String,
    /// Seconds since 1970 from which it does not hold any more; none: it is no certificate.
    pub ends: Option<i64>,
}

struct Source(Region);

impl Ext4Read for Source {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.0.read_at(start_byte, dst)?)
    }
}

impl StateReport {
    /// Reads a partition; what cannot be read is said in its place.
    #[must_use]
    pub fn read(region: Region) -> Self {
        Self::within(TIME_MAX, move |tell| match load(region) {
            Ok(filesystem) => Self::of(&filesystem, tell),
            Err(error) => Self::unknown(format!("{error:#}")),
        })
    }

    fn unknown(problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }

    /// What `work` says in the end, or told when its time was over. It is left alone then: this process ends soon.
    fn within(limit: Duration, work: impl FnOnce(&dyn Fn(Self)) -> Self + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody hears it if its time is over.
            let tell = |report| drop(sender.send((report, false)));
            let report = work(&tell);
            let _ = sender.send((report, true));
        });
        let end = Instant::now() + limit;
        let mut told: Option<Self> = None;
        loop {
            let problem = match receiver.recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok((report, true)) => return report,
                Ok((report, false)) => {
                    told = Some(report);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    format!(
                        "reading went on after {} s, and was given up",
                        limit.as_secs()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => "reading ended in a panic".to_owned(),
            };
            return match told {
                Some(mut report) => {
                    report.problems.push(problem);
                    report
                }
                None => Self::unknown(problem),
            };
        }
    }

    fn of(filesystem: &Ext4, tell: &dyn Fn(Self)) -> Self {
        let mut problems = Vec::new();
        let mut bytes = |name: &str| match file(filesystem, &format!("/sternpost/{name}")) {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.push(format!("{error:#}"));
                None
            }
        };
        let mut text = |name: &str| -> Option<String> {
            bytes(name).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        let json = |text: String| {
            serde_json::from_str(&text)
                .unwrap_or_else(|_| Value::String(format!("not JSON: {text}")))
        };
        let mut report = Self {
            problem: None,
            owner: text("owner.json").map(json),
            host_name: text("hostname"),
            machine_id: text("machine-id"),
            clock: text("clock").and_then(|text| text.parse().ok()),
            ended_cleanly: text("running").map(|text| text == "ended"),
            loader_update: text("loader-update.json").map(json),
            ..Self::default()
        };
        for name in ["profile.yaml", "good-profile.yaml"] {
            report
                .profiles
                .extend(bytes(name).map(|bytes| ProfileReport {
                    file: name,
                    sha256: Digest::of(&bytes),
                }));
        }
        report.problems = problems;
        tell(report.clone());
        let mut walk = Walk {
            filesystem,
            left: ENTRIES_MAX,
            full: false,
            found: Vec::new(),
            problems: report.problems,
        };
        for directory in WITH_CERTIFICATES {
            walk.directory(directory, 0);
        }
        report.certificates = walk.found;
        report.certificates.sort_by(|a, b| a.path.cmp(&b.path));
        report.problems = walk.problems;
        report
    }
}

fn load(mut region: Region) -> Result<Ext4> {
    check(&mut region)?;
    Ext4::load(Box::new(Source(region))).context("it cannot be read as ext4")
}

/// Looks at the numbers of a superblock (ext4, "Super Block") by which memory is taken and reading goes on.
///
/// # Errors
/// They cannot be those of a filesystem in this partition.
fn check(region: &mut Region) -> Result<()> {
    const MAGIC: u32 = 0xef53;
    let mut block = [0; 1024];
    region
        .read_at(1024, &mut block)
        .context("its superblock cannot be read")?;
    let number = |at: usize| {
        let bytes = block
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    if number(0x38) & 0xffff != MAGIC {
        // Who reads it says so.
        return Ok(());
    }
    let log = number(0x18);
    ensure!(
        log <= BLOCK_LOG_MAX,
        "it is damaged: no ext4 has blocks of 2^{} bytes",
        u64::from(log) + 10
    );
    let blocks = u64::from(number(0x150)) << 32 | u64::from(number(4));
    let bytes = blocks.checked_mul(1024 << log);
    ensure!(
        bytes.is_some_and(|bytes| bytes <= region.size()),
        "it is damaged: it says that it has {blocks} blocks of {} bytes, more than the partition's {} bytes",
        1024 << log,
        region.size()
    );
    let groups = blocks.div_ceil(u64::from(number(0x20).max(1)));
    ensure!(
        groups <= GROUPS_MAX,
        "it is damaged: it says that it has {groups} block groups, for {blocks} blocks"
    );
    Ok(())
}

/// What is at a path, if anything is. No link is followed: the text of one is read whole, however long it says
/// that it is.
///
/// # Errors
/// It cannot be read, or something on the way to it is no directory, or one that is far too large.
fn look(filesystem: &Ext4, path: &str) -> Result<Option<Metadata>> {
    let ends = path.match_indices('/').map(|(at, _)| at.max(1));
    let mut found = None;
    for end in ends.chain([path.len()]) {
        let part = &path[..end];
        let meta = match filesystem.symlink_metadata(part) {
            Ok(meta) => meta,
            Err(Ext4Error::NotFound) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {part}")),
        };
        ensure!(meta.is_dir() || end == path.len(), "{part} is no directory");
        ensure!(
            !meta.is_dir() || meta.len() <= DIRECTORY_MAX,
            "the directory {part} says that it has {} bytes, and is not read",
            meta.len()
        );
        found = Some(meta);
    }
    Ok(found)
}

/// A file, if there is one.
fn file(filesystem: &Ext4, path: &str) -> Result<Option<Vec<u8>>> {
    let Some(meta) = look(filesystem, path)? else {
        return Ok(None);
    };
    ensure!(
        meta.file_type().is_regular_file(),
        "{path} is no regular file"
    );
    ensure!(
        meta.len() <= FILE_MAX,
        "{path} has {} bytes, and is not read",
        meta.len()
    );
    let bytes = filesystem
        .read(path)
        .with_context(|| format!("reading {path}"))?;
    Ok(Some(bytes))
}

/// Collects the certificates below directories. Links are not followed: what they name is there as well.
struct Walk<'a> {
    filesystem: &'a Ext4,
    /// How many entries may still be looked at: a damaged directory may hold itself.
    left: usize,
    /// There are more certificates than are listed.
    full: bool,
    found: Vec<CertificateReport>,
    problems: Vec<String>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &str, depth: usize) {
        if let Err(error) = self.entries(path, depth) {
            self.problem(format!("{error:#}"));
        }
    }

    /// Each is said once, and not too many.
    fn problem(&mut self, text: String) {
        match self.problems.len() {
            _ if self.problems.contains(&text) => {}
            PROBLEMS_MAX => self.problems.push("and more".to_owned()),
            n if n < PROBLEMS_MAX => self.problems.push(text),
            _ => {}
        }
    }

    fn entries(&mut self, directory: &str, depth: usize) -> Result<()> {
        let what = || format!("reading {directory}");
        let Some(meta) = look(self.filesystem, directory)? else {
            return Ok(());
        };
        ensure!(meta.is_dir(), "{directory} is no directory");
        for entry in self.filesystem.read_dir(directory).with_context(what)? {
            if self.full {
                return Ok(());
            }
            if self.left == 0 {
                self.problem(format!(
                    "the search for certificates ended after {ENTRIES_MAX} files and directories"
                ));
                return Ok(());
            }
            self.left -= 1;
            let entry = entry.with_context(what)?;
            let Ok(name) = entry.file_name().as_str().map(str::to_owned) else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{directory}/{name}");
            let kind = entry.file_type().with_context(what)?;
            if kind.is_dir() && depth < DEPTH_MAX {
                self.directory(&path, depth + 1);
            } else if kind.is_dir() {
                self.problem(format!(
                    "no certificates were looked for more than {DEPTH_MAX} directories deep"
                ));
            } else if kind.is_regular_file()
                && [".crt", ".pem"].iter().any(|end| name.ends_with(end))
            {
                if self.found.len() >= CERTIFICATES_MAX {
                    self.full = true;
                    self.problem(format!(
                        "the list of certificates ends after {CERTIFICATES_MAX}; there are more"
                    ));
                    return Ok(());
                }
                match file(self.filesystem, &path) {
                    Ok(Some(bytes)) => self.found.push(CertificateReport {
                        ends: end_of_pem(&String::from_utf8_lossy(&bytes)),
                        path,
                    }),
                    Ok(None) => {}
                    Err(error) => self.problem(format!("{error:#}")),
                }
            }
        }
        Ok(())
    }
}

/// When the first certificate of a PEM file (RFC 7468) ends.
fn end_of_pem(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    end_of(&Base64::decode_vec(&body).ok()?)
}

/// `notAfter` of a certificate: RFC 5280, section 4.1.
fn end_of(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, time, _) = element(after)?;
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let number = |at: usize, length: usize| text.get(at..at + length)?.parse::<i64>().ok();
    let (year, at) = match tag {
        // UTCTime has two digits: 1950 to 2049.
        0x17 => match number(0, 2)? {
            year if year < 50 => (2000 + year, 2),
            year => (1900 + year, 2),
        },
        0x18 => (number(0, 4)?, 4),
        _ => return None,
    };
    let pair = |n: usize| number(at + 2 * n, 2);
    unix_seconds(
        [year, pair(0)?, pair(1)?],
        [pair(2)?, pair(3)?, pair(4)?],
        0,
    )
}

/// Content of an element that must have this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// Tag and content of a DER element (X.690, 8.1), and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::output::image::Image;

    /// Files as a machine leaves them, made by mkfs.ext4 as `state` is.
    const STATE: &[u8] = include_bytes!("../../tests/data/state.ext4.zst");

    fn region(bytes: &[u8]) -> Region {
        part(bytes, bytes.len())
    }

    /// Of a partition the beginning; the rest is zero.
    fn part(bytes: &[u8], size: usize) -> Region {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(size as u64).unwrap();
        Region::new(Image::new(file, 512).unwrap(), 0, size as u64)
    }

    #[test]
    fn what_a_machine_left_is_read() {
        let image = zstd::decode_all(STATE).unwrap();
        let report = StateReport::read(region(&image));
        assert_eq!(report.problem, None);
        assert_eq!(report.owner.as_ref().unwrap()["version"], "2.1");
        assert_eq!(report.host_name.as_deref(), Some("box-7"));
        assert_eq!(report.clock, Some(1_795_200_000));
        assert_eq!(report.ended_cleanly, Some(true));
        let profiles: Vec<_> = report.profiles.iter().map(|it| it.file).collect();
        assert_eq!(profiles, ["profile.yaml", "good-profile.yaml"]);
        let certificate = |path: &str, ends| CertificateReport {
            path: path.to_owned(),
            ends,
        };
        // As openssl says of them: 28 November 2036 and 9 October 2059, 03:34:11.
        assert_eq!(
            report.certificates,
            [
                certificate("/epoch/etc/kubernetes/pki/broken.crt", None),
                certificate("/epoch/etc/kubernetes/pki/ca.crt", Some(2_111_456_051)),
                certificate(
                    "/epoch/etc/kubernetes/pki/etcd/server.crt",
                    Some(2_832_896_051)
                ),
                certificate(
                    "/var/lib/kubelet/pki/kubelet-client-1.pem",
                    Some(2_111_456_051)
                ),
            ]
        );
        let json = serde_json::to_string(&report).unwrap();
        assert!(!json.contains("secret"), "{json}");
    }

    #[test]
    fn what_is_no_filesystem_is_said_to_be_so() {
        let report = StateReport::read(region(&[7; 100_000]));
        assert!(report.problem.unwrap().contains("ext4"));
        // Damaged anywhere, it is an answer and never a panic.
        let image = zstd::decode_all(STATE).unwrap();
        for at in (0..200_000).step_by(1013) {
            let mut damaged = image[..2_000_000].to_vec();
            damaged[at] ^= 0xff;
            let report = StateReport::read(part(&damaged, image.len()));
            assert!(!format!("{report:?}").contains("panic"), "{at}: {report:?}");
        }
    }

    /// An image without checksums of its metadata, to be changed.
    fn unchecked() -> Vec<u8> {
        const METADATA_CSUM: u8 = 4;
        let mut image = zstd::decode_all(STATE).unwrap();
        assert_ne!(image[1024 + 0x65] & METADATA_CSUM, 0);
        image[1024 + 0x65] &= !METADATA_CSUM;
        image
    }

    /// Where the block of a directory with this entry begins, and the entries after `.` and `..` in it.
    fn directory_with(image: &[u8], name: &str) -> (usize, Vec<usize>) {
        let at = image
            .windows(name.len())
            .position(|window| window == name.as_bytes())
            .unwrap();
        let block = at - at % 4096;
        let mut entries = vec![block];
        while let Some(last) = entries.last().copied() {
            let length = u16::from_le_bytes([image[last + 4], image[last + 5]]);
            let next = last + usize::from(length);
            if next >= block + 4096 || image[next..next + 4] == [0; 4] {
                break;
            }
            entries.push(next);
        }
        (block, entries.split_off(2))
    }

    #[test]
    fn a_directory_that_holds_itself_ends_the_search_alone() {
        let mut image = unchecked();
        let (block, entries) = directory_with(&image, "broken.crt");
        assert!(entries.len() > 2);
        for entry in entries {
            image.copy_within(block..block + 4, entry);
            image[entry + 7] = 2;
        }
        let report = StateReport::read(region(&image));
        assert_eq!(report.host_name.as_deref(), Some("box-7"));
        let said = report.problems.join("\n");
        assert!(said.contains("ended after 20000"), "{said}");
        let path = &report.certificates[0].path;
        assert_eq!(path, "/var/lib/kubelet/pki/kubelet-client-1.pem");
    }

    #[test]
    fn a_bad_directory_costs_what_is_in_it() {
        let mut image = unchecked();
        let (block, _) = directory_with(&image, "broken.crt");
        image[block + 4..block + 6].fill(0);
        let report = StateReport::read(region(&image));
        assert_eq!(report.problem, None);
        assert_eq!(report.owner.unwrap()["version"], "2.1");
        assert_eq!(report.certificates.len(), 1);
        assert!(
            report.problems[0].contains("/epoch/etc/kubernetes/pki"),
            "{:?}",
            report.problems
        );
    }

    #[test]
    fn sizes_that_cannot_be_are_not_believed() {
        let whole = unchecked();
        assert_eq!(StateReport::read(region(&whole)).problem, None);
        for (at, value, expected) in [
            (0x18, 21_u32, "blocks of 2^31 bytes"),
            (0x18, u32::MAX, "blocks of 2^"),
            (0x04, u32::MAX, "more than the partition's"),
            (0x150, 1, "more than the partition's"),
        ] {
            let mut image = whole.clone();
            image[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
            let problem = StateReport::read(region(&image)).problem.unwrap();
            assert!(problem.contains(expected), "{problem}");
        }
        // A group for each block, of a partition that is large enough for them.
        let mut image = whole[..2_000_000].to_vec();
        image[1028..1032].copy_from_slice(&(1_u32 << 21).to_le_bytes());
        image[1024 + 0x20..1024 + 0x24].copy_from_slice(&1_u32.to_le_bytes());
        let problem = StateReport::read(part(&image, 16 << 30)).problem.unwrap();
        assert!(problem.contains("2097152 block groups"), "{problem}");
    }

    #[test]
    fn what_was_read_in_time_is_known() {
        let told = StateReport {
            host_name: Some("box-7".to_owned()),
            ..StateReport::default()
        };
        let slow = |told: Option<StateReport>| {
            StateReport::within(Duration::from_millis(50), move |tell| {
                told.into_iter().for_each(tell);
                std::thread::sleep(Duration::from_secs(10));
                StateReport::default()
            })
        };
        let report = slow(Some(told));
        assert_eq!(report.host_name.as_deref(), Some("box-7"));
        assert!(report.problems[0].contains("given up"));
        assert!(slow(None).problem.unwrap().contains("given up"));
    }

    #[test]
    fn der_that_ends_early_is_no_certificate() {
        assert_eq!(
            element(&[0x30, 0x03, 1, 2, 3, 9]),
            Some((0x30, &[1, 2, 3][..], &[9][..]))
        );
        assert_eq!(
            element(&[0x04, 0x81, 1, 7]),
            Some((0x04, &[7][..], &[][..]))
        );
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 2, 1],
            &[0x30, 0x80],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert_eq!(element(wrong), None);
        }
    }
}
