//! What a machine left on its `state` (docs/formats/state.md), read without mounting it, as any user: whose it
//! is, which profiles, when its clock was last right, until when its certificates hold. Secrets are not looked at.

use std::error::Error;

use anyhow::{Context as _, Result};
use base64ct::{Base64, Encoding as _};
use boot_core::calendar::unix_seconds;
use boot_core::{Device as _, Digest};
use ext4_view::{Ext4, Ext4Error, Ext4Read};
use serde::Serialize;
use serde_json::Value;

use crate::output::image::Region;

/// The most that is read of a file: everything of ours is far smaller.
const FILE_MAX: u64 = 1 << 20;
/// The most certificates that are listed, and how deep they are looked for.
const CERTIFICATES_MAX: usize = 200;
const DEPTH_MAX: usize = 12;

/// Directories with certificates of the cluster and of the kubelet.
const WITH_CERTIFICATES: [&str; 3] = ["/shared", "/epoch", "/var/lib/kubelet/pki"];

/// What a `state` holds.
#[derive(Debug, Default, Serialize)]
pub struct StateReport {
    /// Why nothing is known.
    pub problem: Option<String>,
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
#[derive(Debug, Serialize)]
pub struct ProfileReport {
    pub file: &'static str,
    pub sha256: Digest,
}

/// A certificate.
#[derive(Debug, PartialEq, Eq, Serialize)]
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
        let report = Ext4::load(Box::new(Source(region)))
            .context("it cannot be read as ext4")
            .and_then(|filesystem| Self::of(&filesystem));
        report.unwrap_or_else(|error| Self {
            problem: Some(format!("{error:#}")),
            ..Self::default()
        })
    }

    fn of(filesystem: &Ext4) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let bytes = file(filesystem, &format!("/sternpost/{name}"))?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
        };
        let json = |name: &str| -> Result<Option<Value>> {
            let unreadable = |text| Value::String(format!("not JSON: {text}"));
            Ok(text(name)?.map(|text| match serde_json::from_str(&text) {
                Ok(value) => value,
                Err(_) => unreadable(text),
            }))
        };
        let mut profiles = Vec::new();
        for name in ["profile.yaml", "good-profile.yaml"] {
            if let Some(bytes) = file(filesystem, &format!("/sternpost/{name}"))? {
                profiles.push(ProfileReport {
                    file: name,
                    sha256: Digest::of(&bytes),
                });
            }
        }
        let mut certificates = Vec::new();
        for directory in WITH_CERTIFICATES {
            walk(filesystem, directory, 0, &mut certificates)?;
        }
        certificates.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            problem: None,
            owner: json("owner.json")?,
            host_name: text("hostname")?,
            machine_id: text("machine-id")?,
            profiles,
            clock: text("clock")?.and_then(|text| text.parse().ok()),
            ended_cleanly: text("running")?.map(|text| text == "ended"),
            loader_update: json("loader-update.json")?,
            certificates,
        })
    }
}

/// A regular file that is not too large, if there is one.
fn file(filesystem: &Ext4, path: &str) -> Result<Option<Vec<u8>>> {
    let meta = match filesystem.symlink_metadata(path) {
        Ok(meta) => meta,
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {path}")),
    };
    if !meta.file_type().is_regular_file() || meta.len() > FILE_MAX {
        return Ok(None);
    }
    let bytes = filesystem
        .read(path)
        .with_context(|| format!("reading {path}"))?;
    Ok(Some(bytes))
}

/// Collects the certificates below a directory. Links are not followed: what they name is there as well.
fn walk(
    filesystem: &Ext4,
    directory: &str,
    depth: usize,
    found: &mut Vec<CertificateReport>,
) -> Result<()> {
    let what = || format!("reading {directory}");
    let entries = match filesystem.read_dir(directory) {
        Ok(entries) => entries,
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(()),
        Err(error) => return Err(error).with_context(what),
    };
    for entry in entries {
        let entry = entry.with_context(what)?;
        let Ok(name) = entry.file_name().as_str().map(str::to_owned) else {
            continue;
        };
        if name == "." || name == ".." || found.len() >= CERTIFICATES_MAX {
            continue;
        }
        let path = format!("{directory}/{name}");
        let kind = entry.file_type().with_context(what)?;
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(filesystem, &path, depth + 1, found)?;
        } else if kind.is_regular_file()
            && [".crt", ".pem"].iter().any(|end| name.ends_with(end))
            && let Some(bytes) = file(filesystem, &path)?
        {
            let ends = end_of_pem(&String::from_utf8_lossy(&bytes));
            found.push(CertificateReport { path, ends });
        }
    }
    Ok(())
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
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Region::new(Image::new(file, 512).unwrap(), 0, bytes.len() as u64)
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
            let _ = StateReport::read(region(&damaged));
        }
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
