//! Who must have signed: chains of both formats signed by any of four keys, two of each algorithm, then damaged.
//!
//! The verifier and a few lines that count signatures must agree on whether it is believed.
#![no_main]

use arbitrary::Arbitrary;
use boot_core::KeyringSerial;
use boot_core::dsse::Envelope;
use boot_core::keyring::{Chain, KeySet, Keyring, LINKS_MAX};
use boot_core::public_key::KeyFormat;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::KEYS;

/// Some of the four keys, and how many of them must sign.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Set {
    keys: u8,
    threshold: u8,
}

/// Most are of format 2, in which all keys can be written.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Format(u8);

#[derive(Arbitrary, Debug)]
struct Link {
    format: Format,
    serial: u8,
    other_product: bool,
    other_type: bool,
    root: Set,
    signing: Set,
    signers: Vec<Signer>,
    /// The payload is changed after it was signed.
    forged: bool,
}

#[derive(Arbitrary, Debug)]
struct Signer {
    key: u8,
    damage: Damage,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    /// The hint is missing: the signature counts.
    NoKeyId,
    /// The hint names another key: it does not count.
    OtherKeyId,
    Signature(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    format: Format,
    trusted: Set,
    links: Vec<Link>,
}

impl Set {
    fn members(self) -> Vec<usize> {
        (0..4).filter(|key| self.keys & (1 << key) != 0).collect()
    }

    /// None where there can be no such set, which is for `keyring` to refuse.
    fn make(self, format: Format) -> Option<KeySet> {
        let keys = self.members().into_iter().map(|key| KEYS[key].1).collect();
        KeySet::new(format.get(), self.threshold % 5, keys).ok()
    }
}

impl Format {
    fn get(self) -> KeyFormat {
        if self.0 < 64 {
            KeyFormat::V1
        } else {
            KeyFormat::V2
        }
    }
}

impl Link {
    /// Whether those of `set` signed it, by counting.
    fn is_signed_by(&self, set: Set) -> bool {
        let good = |key: &usize| {
            self.signers.iter().any(|signer| {
                usize::from(signer.key % 4) == *key
                    && matches!(signer.damage, Damage::None | Damage::NoKeyId)
            })
        };
        let count = set.members().iter().filter(|key| good(key)).count();
        !self.forged && !self.other_type && count >= usize::from(set.threshold % 5)
    }

    fn make(&self) -> Option<Envelope> {
        let product = if self.other_product { "other" } else { "test" };
        let keyring = Keyring {
            format: self.format.get().number(),
            serial: KeyringSerial(self.serial.into()),
            product: product.into(),
            root: self.root.make(self.format)?,
            signing: self.signing.make(self.format)?,
            profile: None,
        };
        let mut envelope = keyring.to_envelope();
        if self.other_type {
            envelope.payload_type = "text/plain".into();
        }
        for signer in &self.signers {
            let (key, _) = KEYS[usize::from(signer.key % 4)];
            key.sign(&mut envelope);
            let signature = envelope.signatures.last_mut()?;
            match signer.damage {
                Damage::None => {}
                Damage::NoKeyId => signature.keyid.clear(),
                Damage::OtherKeyId => {
                    signature.keyid = KEYS[usize::from(signer.key.wrapping_add(1) % 4)].1.keyid();
                }
                Damage::Signature(at) => signature.signature[usize::from(at % 64)] ^= 1,
            }
        }
        if self.forged {
            let keyring = Keyring {
                serial: KeyringSerial(keyring.serial.0 + 1000),
                ..keyring
            };
            envelope.payload = keyring.to_payload();
        }
        Some(envelope)
    }
}

fuzz_target!(|input: Input| {
    let links = &input.links[..input.links.len().min(LINKS_MAX + 1)];
    if links.iter().any(|link| link.signers.len() > 6) {
        return;
    }
    let Some(root) = input.trusted.make(input.format) else {
        return;
    };
    let Some(envelopes) = links.iter().map(Link::make).collect::<Option<Vec<_>>>() else {
        return;
    };
    let mut signers = input.trusted;
    let mut last = None;
    let mut believed = (1..=LINKS_MAX).contains(&links.len());
    for link in links {
        believed &= link.is_signed_by(signers) && !link.other_product && last < Some(link.serial);
        believed &= link.format.get() == input.format.get();
        (signers, last) = (link.root, Some(link.serial));
    }
    let found = Chain::verify(&Envelope::array_to_json(&envelopes), &root, "test");
    assert_eq!(found.is_ok(), believed, "{found:?}");
    if let (Ok(chain), Some(link)) = (found, links.last()) {
        assert_eq!(Some(chain.keyring.signing), link.signing.make(link.format));
    }
});
