//! Keys and signing.
//!
//! A key directory, as `imager keygen` makes it:
//!
//! ```text
//! root.key       PKCS#8 PEM, mode 0600: the root of trust; kept offline, signs keyrings
//! root.pub       SPKI PEM: goes into the loader and into the image's trust.json
//! signing.key    PKCS#8 PEM, mode 0600: signs manifests
//! signing.pub    SPKI PEM
//! keyring.json   the keyring chain, signed by the root key; goes beside each manifest
//! ```
//!
//! A build needs `root.pub`, `keyring.json` and something that signs: a key file, or a command
//! that gets the bytes on standard input and answers with the signature (raw, hex or base64).
//! Private keys are held in memory that is wiped and are part of no message and no `Debug`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    spki::der::pem::LineEnding,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Something that signs bytes with one ed25519 key.
pub trait Signer: Send + Sync {
    /// The 64 bytes of the signature over exactly `message`.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64]>;
    /// Where the key is, for messages: a path or a command, never key material.
    fn describe(&self) -> String;
}

/// Signs with a private key read from a file.
pub struct KeyFile {
    path: PathBuf,
    key: SigningKey,
}

impl KeyFile {
    /// Reads PKCS#8 PEM, or the 32 raw bytes of an ed25519 seed.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds no ed25519 key.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("reading the private key {}", path.display());
        let mode = fs::metadata(path).with_context(what)?.permissions().mode();
        ensure!(
            mode & 0o077 == 0,
            "the private key {} can be read by others (mode {:03o}); make it private: chmod 600 {0}",
            path.display(),
            mode & 0o777,
        );
        let bytes = fs::read(path).with_context(what)?;
        let key = if let Ok(seed) = <&[u8; 32]>::try_from(bytes.as_slice()) {
            SigningKey::from_bytes(seed)
        } else {
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            SigningKey::from_pkcs8_pem(text.trim_end()).with_context(|| {
                format!(
                    "{} is not an ed25519 private key (expected PKCS#8 PEM, as written by `imager keygen` \
                     or `openssl genpkey -algorithm ed25519`, or 32 raw bytes)",
                    path.display()
                )
            })?
        };
        Ok(Self {
            path: path.to_owned(),
            key,
        })
    }

    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }
}

impl Signer for KeyFile {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64]> {
        Ok(self.key.sign(message).to_bytes())
    }

    fn describe(&self) -> String {
        format!("key file {}", self.path.display())
    }
}

/// Signs by running a command (a shell line): bytes on its standard input, signature on its standard output.
pub struct SignCommand {
    line: String,
}

impl SignCommand {
    /// `line` is given to `sh -c`.
    #[must_use]
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into() }
    }
}

impl Signer for SignCommand {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64]> {
        let what = || format!("signing with the command `{}`", self.line);
        let mut child = Command::new("sh")
            .args(["-c", &self.line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(what)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input gets a broken pipe here; its exit status says more.
            let _ = stdin.write_all(message);
        }
        let output = child.wait_with_output().with_context(what)?;
        ensure!(
            output.status.success(),
            "{}: it ended with {}",
            what(),
            output.status
        );
        decode_signature(&output.stdout).with_context(|| {
            format!(
                "{}: it answered {} bytes that are no ed25519 signature (64 raw bytes, hex or base64)",
                what(),
                output.stdout.len()
            )
        })
    }

    fn describe(&self) -> String {
        format!("command `{}`", self.line)
    }
}

fn decode_signature(bytes: &[u8]) -> Option<[u8; 64]> {
    if let Ok(raw) = <[u8; 64]>::try_from(bytes) {
        return Some(raw);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let decoded = if text.len() == 128 {
        hex::decode(text).ok()?
    } else {
        use base64ct::{Base64, Encoding as _};
        Base64::decode_vec(text).ok()?
    };
    decoded.try_into().ok()
}

/// Signs `message` and finds which of `allowed` the signature belongs to; fails when it is none of them.
pub fn sign_as_one_of(
    signer: &dyn Signer,
    message: &[u8],
    allowed: &[[u8; 32]],
) -> Result<([u8; 32], [u8; 64])> {
    let raw = signer.sign(message)?;
    let signature = Signature::from_bytes(&raw);
    let owner = allowed.iter().find(|key| {
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    });
    match owner {
        Some(key) => Ok((*key, raw)),
        None => bail!(
            "the signature made by the {} belongs to none of the {} signing keys of the keyring; \
             sign with one of them, or add this key to the keyring",
            signer.describe(),
            allowed.len()
        ),
    }
}

/// Makes a key pair: `NAME.key` (mode 0600) and `NAME.pub`. Never overwrites.
pub fn generate(dir: &Path, name: &str) -> Result<KeyFile> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| anyhow::anyhow!("getting random bytes for a key: {e}"))?;
    let key = SigningKey::from_bytes(&seed);
    seed.fill(0);
    let path = dir.join(format!("{name}.key"));
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .context("encoding a private key")?;
    write_new(&path, pem.as_bytes(), 0o600)?;
    write_public(&dir.join(format!("{name}.pub")), &key.verifying_key())?;
    Ok(KeyFile { path, key })
}

fn write_public(path: &Path, key: &VerifyingKey) -> Result<()> {
    let pem = key
        .to_public_key_pem(LineEnding::LF)
        .context("encoding a public key")?;
    write_new(path, pem.as_bytes(), 0o644)
}

/// Writes a file that must not be there yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| {
            format!(
                "making {} (an existing key is never overwritten)",
                path.display()
            )
        })?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

/// Reads a public key: SPKI PEM, 64 hex digits, or 32 raw bytes.
pub fn read_public(path: &Path) -> Result<[u8; 32]> {
    let bytes =
        fs::read(path).with_context(|| format!("reading the public key {}", path.display()))?;
    parse_public(&bytes).with_context(|| {
        format!(
            "{} is not an ed25519 public key (expected SPKI PEM, 64 hex digits, or 32 raw bytes)",
            path.display()
        )
    })
}

fn parse_public(bytes: &[u8]) -> Option<[u8; 32]> {
    let raw = if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        raw
    } else {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        if text.len() == 64 {
            hex::decode(text).ok()?.try_into().ok()?
        } else {
            VerifyingKey::from_public_key_pem(text).ok()?.to_bytes()
        }
    };
    VerifyingKey::from_bytes(&raw)
        .ok()
        .filter(|key| !key.is_weak())?;
    Some(raw)
}

/// The public keys `NAME.pub`, `NAME-2.pub`, … of a key directory, in order.
pub fn public_keys(dir: &Path, name: &str) -> Result<Vec<[u8; 32]>> {
    let mut keys = vec![read_public(&dir.join(format!("{name}.pub")))?];
    for n in 2.. {
        let path = dir.join(format!("{name}-{n}.pub"));
        if !path.exists() {
            break;
        }
        keys.push(read_public(&path)?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_private_and_signs() {
        let dir = tempfile::tempdir().unwrap();
        let made = generate(dir.path(), "signing").unwrap();
        let path = dir.path().join("signing.key");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(generate(dir.path(), "signing").is_err(), "never overwrites");
        let read = KeyFile::open(&path).unwrap();
        assert_eq!(read.public(), made.public());
        let public = read_public(&dir.path().join("signing.pub")).unwrap();
        let (owner, signature) = sign_as_one_of(&read, b"bytes", &[public]).unwrap();
        assert_eq!(owner, public);
        made.public()
            .verify_strict(b"bytes", &Signature::from_bytes(&signature))
            .unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), "k").unwrap();
        let path = dir.path().join("k.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = KeyFile::open(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_command_may_answer_raw_hex_or_base64() {
        use base64ct::{Base64, Encoding as _};
        let signature: [u8; 64] = std::array::from_fn(|i| i as u8);
        assert_eq!(decode_signature(&signature), Some(signature));
        assert_eq!(
            decode_signature(format!("{}\n", hex::encode(signature)).as_bytes()),
            Some(signature)
        );
        assert_eq!(
            decode_signature(Base64::encode_string(&signature).as_bytes()),
            Some(signature)
        );
        assert_eq!(decode_signature(b"no"), None);
    }

    #[test]
    fn a_command_that_signs_with_a_foreign_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ours = generate(dir.path(), "ours").unwrap();
        let foreign = generate(dir.path(), "foreign").unwrap();
        assert!(sign_as_one_of(&foreign, b"m", &[ours.public().to_bytes()]).is_err());
        let failing = SignCommand::new("cat >/dev/null; exit 3");
        let error = failing.sign(b"m").unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn public_keys_are_read_as_pem_hex_or_raw() {
        let dir = tempfile::tempdir().unwrap();
        let key = generate(dir.path(), "a").unwrap().public().to_bytes();
        assert_eq!(
            parse_public(&fs::read(dir.path().join("a.pub")).unwrap()),
            Some(key)
        );
        assert_eq!(parse_public(hex::encode(key).as_bytes()), Some(key));
        assert_eq!(parse_public(&key), Some(key));
        assert_eq!(parse_public(b"rubbish"), None);
    }
}
