//! Whose image it is: the root of trust, the keyring chain, and the signature on a manifest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use boot_core::dsse::{self, Envelope};
use boot_core::keyring::{Chain, KeySet, Keyring};
use boot_core::manifest::{self, Manifest};
use boot_core::public_key::KeyFormat;
use boot_core::trust::Trust;
use boot_core::{Architecture, Digest, KeyringSerial, PublicKey};

use crate::recipe::is_word;
use crate::release::signers::{self, KeyFile, SignCommand, Signer};

/// How many keys `imager keygen` makes.
#[derive(Clone, Copy, Debug)]
pub struct KeyCount {
    /// Keys in the set.
    pub keys: u8,
    /// How many of them must sign.
    pub threshold: u8,
}

/// Makes a key directory: root keys, signing keys, and the keyring that the root keys sign.
///
/// # Errors
/// The directory holds keys already, no recipe may name the product, or the counts make no sense; nothing is made then.
pub fn make_keys(directory: &Path, product: &str, root: KeyCount, signing: KeyCount) -> Result<()> {
    ensure!(
        !product.is_empty() && is_word(product),
        "`{product}` is no product that a recipe can name: 1 to 64 letters, digits, `_`, `-` and `.`, the first neither \
         `-` nor `.`"
    );
    for (name, count) in [("root", root), ("signing", signing)] {
        ensure!(
            (1..=count.keys).contains(&count.threshold),
            "a threshold of {} cannot be met by {} {name} key(s); more are made with `--{name}-keys`",
            count.threshold,
            count.keys
        );
    }
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    for name in ["root.json", "keyring.json", "root.key", "signing.key"] {
        let path = directory.join(name);
        ensure!(
            !path.exists(),
            "{} is there already; keys are never overwritten, choose another directory",
            path.display()
        );
    }
    let set = |name: &str, count: KeyCount| -> Result<(Vec<KeyFile>, KeySet)> {
        let keys: Vec<KeyFile> = (1..=count.keys)
            .map(|n| signers::generate(directory, &numbered(name, n)))
            .collect::<Result<_>>()?;
        let public = keys
            .iter()
            .map(|key| PublicKey::Ed25519(key.public().to_bytes()))
            .collect();
        let set = KeySet::new(KeyFormat::V1, count.threshold, public)
            .with_context(|| format!("making the {name} keys"))?;
        Ok((keys, set))
    };
    let (root_keys, root) = set("root", root)?;
    let (_, signing) = set("signing", signing)?;
    let keyring = Keyring {
        format: root.format().number(),
        serial: KeyringSerial(1),
        product: product.to_owned(),
        root: root.clone(),
        signing,
        profile: None,
    };
    let mut envelope = keyring.to_envelope();
    for key in &root_keys {
        envelope.sign(&PublicKey::Ed25519(key.public().to_bytes()), |message| {
            key.sign(message)
        })?;
    }
    let root_json = serde_json::to_vec_pretty(&root).context("encoding the root keys")?;
    signers::write_new(&directory.join("root.json"), &root_json, 0o644)?;
    signers::write_new(
        &directory.join("keyring.json"),
        &Envelope::array_to_json(&[envelope]),
        0o644,
    )
}

fn numbered(name: &str, n: u8) -> String {
    if n == 1 {
        name.to_owned()
    } else {
        format!("{name}-{n}")
    }
}

/// What a build signs with.
#[derive(Clone)]
pub struct Authority {
    root: KeySet,
    /// The keyring chain, as it goes beside each manifest.
    pub chain: Vec<u8>,
    pub keyring: Keyring,
    signers: Vec<Arc<dyn Signer>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens a key directory. With neither key files nor commands named, the directory's own signing
    /// keys are used, as many as the keyring asks for.
    ///
    /// # Errors
    /// Something is missing, or the keyring was not signed by the root keys.
    pub fn open(directory: &Path, key_files: &[PathBuf], commands: &[String]) -> Result<Self> {
        let root = read_root(directory)?;
        let path = directory.join("keyring.json");
        let chain =
            fs::read(&path).with_context(|| format!("reading the keyring {}", path.display()))?;
        let product = claimed_product(&chain)
            .with_context(|| format!("reading the keyring {}", path.display()))?;
        let keyring = Chain::verify(&chain, &root, &product)
            .with_context(|| format!("checking the keyring {}", path.display()))?
            .keyring;
        let mut signers: Vec<Arc<dyn Signer>> = Vec::new();
        for file in key_files {
            signers.push(Arc::new(KeyFile::open(file)?));
        }
        for line in commands {
            signers.push(Arc::new(SignCommand::new(line)));
        }
        if signers.is_empty() {
            for n in 1..=keyring.signing.threshold() {
                let path = directory.join(format!("{}.key", numbered("signing", n)));
                ensure!(
                    path.exists(),
                    "no signing key: {} is not there; name one with --key FILE or --sign-command COMMAND",
                    path.display()
                );
                signers.push(Arc::new(KeyFile::open(&path)?));
            }
        }
        Ok(Self {
            root,
            chain,
            keyring,
            signers,
        })
    }

    /// The root of trust that goes into loader and image.
    #[must_use]
    pub fn trust(&self, architecture: Architecture, layout: &str) -> Trust {
        Trust {
            format: self.root.format().number(),
            product: self.keyring.product.clone(),
            architecture,
            layout: layout.to_owned(),
            root: self.root.clone(),
            former_root: None,
        }
    }

    /// Signs a manifest with every signer; fails when they are fewer than the keyring asks for.
    ///
    /// # Errors
    /// A signer fails, signs with a key that is not in the keyring, or there are too few.
    pub fn sign(&self, manifest: &Manifest) -> Result<Signed> {
        manifest
            .check()
            .context("checking the manifest before it is signed")?;
        let payload = manifest.to_payload();
        let digest = Digest::of(&payload);
        let mut envelope = Envelope::new(manifest::PAYLOAD_TYPE, payload);
        let message = dsse::pae(&envelope.payload_type, &envelope.payload);
        // Those of another algorithm are for whoever has them to sign with.
        let of_ours = |key: &PublicKey| match key {
            PublicKey::Ed25519(bytes) => Some(*bytes),
            PublicKey::EcdsaP256(_) => None,
        };
        let keys = self.keyring.signing.keys();
        let allowed: Vec<[u8; 32]> = keys.iter().filter_map(of_ours).collect();
        let mut used = Vec::new();
        for signer in &self.signers {
            let (key, signature) = signers::sign_as_one_of(&**signer, &message, &allowed)
                .with_context(|| format!("signing the manifest of version {}", manifest.version))?;
            if !used.contains(&key) {
                used.push(key);
                envelope.sign(&PublicKey::Ed25519(key), |_| anyhow::Ok(signature))?;
            }
        }
        let needed = usize::from(self.keyring.signing.threshold());
        if used.len() < needed {
            bail!(
                "the keyring asks for {needed} signatures by different keys and only {} could be made; \
                 name more keys with --key or --sign-command",
                used.len()
            );
        }
        Ok(Signed {
            digest,
            envelope: envelope.to_json(),
        })
    }
}

#[derive(Clone, Debug)]
pub struct Signed {
    /// SHA-256 of the payload.
    pub digest: Digest,
    pub envelope: Vec<u8>,
}

/// The root keys of a key directory (`root.json`).
pub fn read_root(directory: &Path) -> Result<KeySet> {
    let path = directory.join("root.json");
    let bytes = fs::read(&path).with_context(|| {
        format!(
            "reading the root keys {}; make a key directory with `imager keygen`",
            path.display()
        )
    })?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("reading the root keys {}", path.display()))
}

/// The product that a keyring chain says it is for, before anything of it is checked.
pub fn claimed_product(chain: &[u8]) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Product {
        product: String,
    }
    let envelopes: Vec<serde_json::Value> =
        serde_json::from_slice(chain).context("not a keyring chain")?;
    let first = envelopes.first().context("the keyring chain is empty")?;
    let envelope = Envelope::parse(first.to_string().as_bytes())?;
    let product: Product = serde_json::from_slice(&envelope.payload).context("not a keyring")?;
    Ok(product.product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_core::verify::verify_manifest;

    const ONE: KeyCount = KeyCount {
        keys: 1,
        threshold: 1,
    };

    fn manifest(product: &str) -> Manifest {
        let json = serde_json::json!({
            "format": 1, "product": product, "kind": "recovery", "layout": "ab-1", "version": "1",
            "security_version": 1, "state_epoch": 1, "architecture": "x86_64",
            "uki": {"size": 1, "digest": "00".repeat(32), "chunk_size": 4_194_304, "chunks": ["00".repeat(32)]},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_signed_verifies_with_the_trust_that_the_loader_gets() {
        let dir = tempfile::tempdir().unwrap();
        make_keys(dir.path(), "edge", ONE, ONE).unwrap();
        let authority = Authority::open(dir.path(), &[], &[]).unwrap();
        let signed = authority.sign(&manifest("edge")).unwrap();
        let trust = authority.trust(Architecture::X86_64, "ab-1");
        let verified = verify_manifest(&trust, &signed.envelope, &authority.chain).unwrap();
        assert_eq!(verified.digest, signed.digest);
    }

    #[test]
    fn two_of_three_signing_keys() {
        let dir = tempfile::tempdir().unwrap();
        make_keys(
            dir.path(),
            "edge",
            ONE,
            KeyCount {
                keys: 3,
                threshold: 2,
            },
        )
        .unwrap();
        let authority = Authority::open(dir.path(), &[], &[]).unwrap();
        let signed = authority.sign(&manifest("edge")).unwrap();
        let trust = authority.trust(Architecture::X86_64, "ab-1");
        verify_manifest(&trust, &signed.envelope, &authority.chain).unwrap();
        let same = dir.path().join("signing-3.key");
        let error = Authority::open(dir.path(), &[same.clone(), same], &[])
            .unwrap()
            .sign(&manifest("edge"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("only 1 could be made"), "{error}");
    }

    #[test]
    fn keys_are_never_made_over_others() {
        let dir = tempfile::tempdir().unwrap();
        make_keys(dir.path(), "edge", ONE, ONE).unwrap();
        assert!(make_keys(dir.path(), "edge", ONE, ONE).is_err());
    }

    #[test]
    fn a_keyring_by_other_root_keys_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_keys(one.path(), "edge", ONE, ONE).unwrap();
        make_keys(two.path(), "edge", ONE, ONE).unwrap();
        fs::copy(
            two.path().join("keyring.json"),
            one.path().join("keyring.json"),
        )
        .unwrap();
        assert!(Authority::open(one.path(), &[], &[]).is_err());
    }
}
