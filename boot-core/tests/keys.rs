//! Keys and signatures of both algorithms, in both formats, and what is refused of them.
#![allow(clippy::unwrap_used)]

use boot_core::{
    KeyringSerial, PublicKey, Target,
    dsse::{DsseError, Envelope, pae},
    floor::Level,
    keyring::{Chain, KeySet, KeySetError, Keyring, KeyringError, payload_type},
    manifest::Kind,
    public_key::{
        KeyFormat::{self, V1, V2},
        P256Point, PublicKeyError,
    },
    slot_header::SlotParts,
    test_support::{
        Image, P256_ROOT, P256_SIGNING, ROOT, SIGNING, Signers, TestP256Key, keyring_chain,
        keyring_chain_v2, trust, trust_v2,
    },
    trust::{Trust, TrustError},
    verify::{Expect, Rejected, Verify as _, verify_manifest},
};
use serde_json::{Value, json};

const MESSAGE: &[u8] = b"what is signed";

/// The order of the curve.
const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    hex::decode(digits).unwrap().try_into().unwrap()
}

fn p256(point: &str) -> PublicKey {
    V2.read(&format!("ecdsa-p256:{point}")).unwrap()
}

fn set(format: KeyFormat, keys: &[PublicKey]) -> KeySet {
    KeySet::new(format, 1, keys.to_vec()).unwrap()
}

#[test]
fn signatures_that_others_made_are_right() {
    // RFC 6979, A.2.5, "sample" with SHA-256: s is above half of the order.
    let key = p256("0360fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6");
    let signature = bytes(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    assert!(key.signed(b"sample", &signature));
    // OpenSSL, which gives DER: integers of 33 bytes, as r and s begin with a bit that is set.
    let key = p256("0267e758107973690950c9a7c1303715ce2e54ccf1c0ddb37f255372e772ff9366");
    let signature = bytes(
        "f1cb07417dd3e35d213096b86b9eda55b2305b36d9d8f56cb874bb0ddbde9f66\
         8668443a0bbf9ed9d8d5d6bc2c91e25cd9fe98dfad2631a0ee3a4362a0764873",
    );
    let message = pae("http://example.com/HelloWorld", b"hello world");
    assert!(key.signed(&message, &signature));
}

/// n - s in the place of s.
fn other_s(signature: [u8; 64]) -> [u8; 64] {
    let (mut other, order) = (signature, bytes::<32>(N));
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(order[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        other[32 + at] = digit.rem_euclid(256) as u8;
    }
    other
}

#[test]
fn the_other_s_of_a_signature_is_as_good_and_counts_once() {
    let signature = P256_SIGNING.signature(MESSAGE);
    let other = other_s(signature);
    assert_ne!(signature, other);
    let key = P256_SIGNING.public();
    assert!(key.signed(MESSAGE, &signature) && key.signed(MESSAGE, &other));

    let keys = vec![key, P256_ROOT.public(), SIGNING.public()];
    let two = KeySet::new(V2, 2, keys).unwrap();
    let mut envelope = Envelope::new("type", MESSAGE);
    for turn in [|it| it, other_s as fn([u8; 64]) -> [u8; 64]] {
        let sign = |bytes: &[u8]| Ok::<_, ()>(turn(P256_SIGNING.signature(bytes)));
        envelope.sign(&key, sign).unwrap();
    }
    let one = Err(DsseError::Signatures { good: 1, needed: 2 });
    assert_eq!(envelope.verify("type", &two), one);
    SIGNING.sign(&mut envelope);
    assert_eq!(envelope.verify("type", &two), Ok(MESSAGE));
}

#[test]
fn wrong_signatures_are_refused() {
    let key = P256_SIGNING.public();
    let right = P256_SIGNING.signature(MESSAGE);
    assert!(key.signed(MESSAGE, &right));
    let (zero, one, order) = ("00".repeat(32), format!("{}01", "00".repeat(31)), N);
    let above = "ff".repeat(32);
    let (r, s) = (hex::encode(&right[..32]), hex::encode(&right[32..]));
    let wrong = [
        ("r is 0", [&zero, &s]),
        ("s is 0", [&r, &zero]),
        ("both are 0", [&zero, &zero]),
        ("r is the order", [&order.into(), &s]),
        ("s is the order", [&r, &order.into()]),
        ("both are the order", [&order.into(), &order.into()]),
        ("r is above the order", [&above, &s]),
        ("s is above the order", [&r, &above]),
        ("r and s are 1", [&one, &one]),
        ("s before r", [&s, &r]),
        ("r twice", [&r, &r]),
    ];
    for (what, [r, s]) in wrong {
        let signature = bytes(&format!("{r}{s}"));
        assert!(!key.signed(MESSAGE, &signature), "{what}");
    }
    for bit in 0..512 {
        let mut flipped = right;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.signed(MESSAGE, &flipped), "bit {bit}");
    }
    assert!(!key.signed(b"something else", &right));
    assert!(!key.signed(&[], &right));
    assert!(!P256_ROOT.public().signed(MESSAGE, &right), "another key");
}

#[test]
fn the_key_says_of_which_algorithm_a_signature_is() {
    // Both private keys are the same bytes.
    let (edwards, p256) = (SIGNING, TestP256Key(SIGNING.0));
    let mut envelope = Envelope::new("type", MESSAGE);
    edwards.sign(&mut envelope);
    p256.sign(&mut envelope);
    let [by_edwards, by_p256] = [0, 1].map(|at: usize| envelope.signatures[at].signature);
    let message = pae("type", MESSAGE);
    for (key, its, others) in [
        (edwards.public(), by_edwards, by_p256),
        (p256.public(), by_p256, by_edwards),
    ] {
        assert!(key.signed(&message, &its), "{key}");
        assert!(!key.signed(&message, &others), "{key}");
    }
    // A key id chooses the key, and with it the algorithm; without one each is tried.
    let (one, other) = (
        edwards.public().keyid(),
        TestP256Key(SIGNING.0).public().keyid(),
    );
    assert_ne!(one, other);
    let both = KeySet::new(V2, 2, vec![edwards.public(), p256.public()]).unwrap();
    let none = DsseError::Signatures { good: 0, needed: 2 };
    for (ids, expected) in [
        ([String::new(), String::new()], Ok(MESSAGE)),
        ([other, one], Err(none)),
    ] {
        for (signature, id) in envelope.signatures.iter_mut().zip(ids) {
            signature.keyid = id;
        }
        assert_eq!(envelope.verify("type", &both), expected);
    }
}

#[test]
fn a_signature_has_64_bytes() {
    for (length, right) in [
        (0, false),
        (63, false),
        (64, true),
        (65, false),
        (71, false),
    ] {
        let sig = "AAAA".repeat(24);
        let sig: String = match length % 3 {
            0 => sig[..length / 3 * 4].into(),
            1 => format!("{}==", &sig[..length / 3 * 4 + 2]),
            _ => format!("{}=", &sig[..length / 3 * 4 + 3]),
        };
        let json = json!({"payloadType": "t", "payload": "", "signatures": [{"sig": sig}]});
        let read = Envelope::parse(json.to_string().as_bytes());
        match read {
            Ok(_) => assert!(right, "{length}"),
            Err(error) => {
                assert_eq!(error, DsseError::SignatureLength(length));
                assert!(error.to_string().contains("not DER"), "{error}");
            }
        }
    }
}

#[test]
fn what_is_no_point_of_the_curve_is_refused_when_it_is_read() {
    let right = *match P256_ROOT.public() {
        PublicKey::EcdsaP256(point) => point,
        PublicKey::Ed25519(_) => unreachable!(),
    }
    .bytes();
    assert!(P256Point::new(right).is_ok());
    let with_tag = |tag: u8| {
        let mut bytes = right;
        bytes[0] = tag;
        bytes
    };
    let x = |digits: &str| bytes::<33>(&format!("02{digits}"));
    // The prime: as much as an x of 0, and not written so. With an x of 5 there are points, with one of 2 none.
    let prime = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    assert!(P256Point::new(x(&format!("{:064x}", 5))).is_ok());
    let wrong = [
        ("infinity", [0; 33]),
        ("infinity, then x", with_tag(0)),
        ("not compressed", with_tag(4)),
        ("compact: another way to write a point", with_tag(5)),
        ("hybrid", with_tag(6)),
        ("beside the curve", x(&format!("{:064x}", 2))),
        ("the prime", x(prime)),
        ("above the prime", x(&"ff".repeat(32))),
    ];
    for (what, point) in wrong {
        assert_eq!(
            P256Point::new(point),
            Err(PublicKeyError::NoPoint(point)),
            "{what}"
        );
        let text = format!("ecdsa-p256:{}", hex::encode(point));
        let error = V2.read(&text).unwrap_err();
        assert!(error.to_string().starts_with(&text), "{error}");
        let json = json!({"threshold": 1, "keys": [text]});
        assert!(serde_json::from_value::<KeySet>(json).is_err(), "{what}");
    }
}

#[test]
fn keys_are_written_as_their_format_has_it() {
    let (edwards, p256) = (ROOT.public(), P256_ROOT.public());
    let digits = hex::encode(edwards.bytes());
    assert_eq!(V1.write(&edwards), Some(digits.clone()));
    assert_eq!(V1.write(&p256), None);
    assert_eq!(V2.write(&edwards), Some(format!("ed25519:{digits}")));
    for (format, key) in [(V1, edwards), (V2, edwards), (V2, p256)] {
        assert_eq!(format.read(&format.write(&key).unwrap()), Ok(key));
    }
    let wrong = [
        (V1, format!("ed25519:{digits}")),
        (V1, digits[2..].into()),
        (V1, String::new()),
        (V2, digits.clone()),
        (V2, format!("ed25519:{digits}00")),
        (V2, format!("ed448:{digits}")),
        (V2, format!("ed25519: {digits}")),
        (V2, format!("Ed25519:{digits}")),
        (V2, format!(":{digits}")),
        (V2, "ecdsa-p256:".into()),
        (V2, format!("ecdsa-p256:{digits}")),
        (V2, format!("ed25519:{}", hex::encode(p256.bytes()))),
    ];
    for (format, text) in wrong {
        let error = format.read(&text).unwrap_err();
        let expected = match format {
            V1 => PublicKeyError::V1,
            V2 => PublicKeyError::V2,
        };
        assert_eq!(error, expected, "{text}");
    }
}

#[test]
fn a_set_is_of_one_format() {
    let (edwards, p256) = (ROOT.public(), P256_ROOT.public());
    let refused = KeySet::new(V1, 1, vec![edwards, p256]);
    let algorithm = "ecdsa-p256";
    let format = V1;
    assert_eq!(refused, Err(KeySetError::Algorithm { format, algorithm }));
    let both = set(V2, &[edwards, p256]);
    let json = serde_json::to_value(&both).unwrap();
    assert_eq!(serde_json::from_value::<KeySet>(json).unwrap(), both);

    let [bare, tagged] = [V1, V2].map(|format| format.write(&edwards).unwrap());
    let other = V1.write(&SIGNING.public()).unwrap();
    for (keys, number) in [([&bare, &tagged], 2), ([&tagged, &other], 2)] {
        let json = json!({"threshold": 1, "keys": keys});
        let error = serde_json::from_value::<KeySet>(json)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("key {number} of a set: ")),
            "{error}"
        );
    }
    let twice = json!({"threshold": 1, "keys": [tagged, tagged]});
    assert!(serde_json::from_value::<KeySet>(twice).is_err());
}

#[test]
fn trust_says_how_its_keys_are_written() {
    assert_eq!(Trust::from_json(&trust_v2().to_json()), Ok(trust_v2()));
    let with_format = |trust: &Trust, format: u32| {
        let mut json = serde_json::to_value(trust).unwrap();
        json["format"] = format.into();
        Trust::from_json(json.to_string().as_bytes())
    };
    for (trust, said, keys) in [(trust(), V2, V1), (trust_v2(), V1, V2)] {
        let other = Err(TrustError::OtherFormat { said, keys });
        assert_eq!(with_format(&trust, said.number()), other);
        assert_eq!(with_format(&trust, 3), Err(TrustError::Format(3)));
    }
    // Of a later format nothing is read but its number.
    let later = Trust::from_json(br#"{"format":3,"root":"of another shape"}"#);
    assert_eq!(later, Err(TrustError::Format(3)));
    let program = boot_core::test_support::program(
        trust_v2().architecture,
        &trust_v2().to_section().unwrap(),
    );
    assert_eq!(Trust::from_intact_program(&program), Ok(trust_v2()));
}

#[test]
fn a_former_root_lets_machines_come_to_the_new_format() {
    let both = Trust {
        former_root: Some(trust().root),
        ..trust_v2()
    };
    assert_eq!(Trust::from_json(&both.to_json()), Ok(both.clone()));
    assert_ne!(both.digest(), trust_v2().digest());
    let image = Image::new(Kind::System, "1.0", 1);
    let starts = |trust: &Trust, image: &Image| {
        let verified = verify_manifest(trust, &image.envelope, &image.keyring);
        verified.map(|it| it.digest)
    };
    let (old, new) = (image.clone(), image.with_keys_v2());
    for image in [&old, &new] {
        assert_eq!(starts(&both, image), Ok(image.digest));
    }
    assert!(starts(&trust_v2(), &old).is_err() && starts(&trust(), &new).is_err());
    // Each root signs chains of its own format, and no other.
    let foreign = Trust {
        former_root: Some(KeySet::new(V1, 1, vec![SIGNING.public()]).unwrap()),
        ..trust_v2()
    };
    assert!(starts(&foreign, &old).is_err());
    let refused = |trust: Trust| Trust::from_json(&trust.to_json());
    let no_former = Err(TrustError::FormerRoot);
    let root = trust().root;
    let beside_its_own = Trust {
        former_root: Some(root.clone()),
        ..trust()
    };
    assert_eq!(refused(beside_its_own), no_former);
    let of_format_2 = Trust {
        former_root: Some(trust_v2().root),
        ..trust_v2()
    };
    assert_eq!(refused(of_format_2), no_former);
}

#[test]
fn a_chain_is_of_the_format_of_its_trust() {
    let [old, new] = [keyring_chain(Signers::default()), keyring_chain_v2()];
    let chain = Chain::verify(&new, &trust_v2().root, "test").unwrap();
    let expected = [SIGNING.public(), P256_SIGNING.public()];
    assert_eq!(chain.keyring.signing.keys(), expected);
    assert_eq!(chain.keyring.profile.unwrap().format(), V2);
    assert!(Chain::verify(&old, &trust().root, "test").is_ok());
    for (chain, trust, found, expected) in [(&new, trust(), V2, V1), (&old, trust_v2(), V1, V2)] {
        let error = Chain::verify(chain, &trust.root, "test").unwrap_err();
        let other = KeyringError::OtherFormat {
            link: 1,
            found,
            expected,
        };
        assert_eq!(error, other);
    }
    // Whoever looks without keys reads both.
    for (json, format) in [(old, 1), (new, 2)] {
        assert_eq!(
            Chain::read_unverified(&json).unwrap().keyring.format,
            format
        );
    }
}

/// A link of format 2 by [`P256_ROOT`], with something about its payload changed before it is signed.
fn link(payload_type: &str, change: impl FnOnce(&mut Value)) -> Envelope {
    let chain = Chain::read_unverified(&keyring_chain_v2()).unwrap();
    let mut payload = serde_json::to_value(&chain.keyring).unwrap();
    change(&mut payload);
    let mut envelope = Envelope::new(payload_type, payload.to_string());
    P256_ROOT.sign(&mut envelope);
    envelope
}

#[test]
fn no_part_of_a_link_is_of_another_format() {
    const TYPE: &str = payload_type(V2);
    let root = trust_v2().root;
    let verify = |links: &[Envelope]| Chain::verify(&Envelope::array_to_json(links), &root, "test");
    assert!(verify(&[link(TYPE, |_| ())]).is_ok());
    let bare = || json!({"threshold": 1, "keys": [V1.write(&SIGNING.public())]});
    let other = |link| {
        Err(KeyringError::OtherFormat {
            link,
            found: V1,
            expected: V2,
        })
    };
    for part in ["root", "signing", "profile"] {
        assert_eq!(
            verify(&[link(TYPE, |it| it[part] = bare())]),
            other(1),
            "{part}"
        );
    }
    assert_eq!(
        verify(&[link(TYPE, |it| it["format"] = 1.into())]),
        other(1)
    );
    let later = link(TYPE, |it| it["format"] = 3.into());
    let (number, format) = (1, 3);
    let error = KeyringError::Format {
        link: number,
        format,
    };
    assert_eq!(verify(&[later]), Err(error));
    assert_eq!(verify(&[link(payload_type(V1), |_| ())]), other(1));

    // A key of format 1 that a link of format 2 names signs no link of format 1.
    let mut first = link(TYPE, |it| {
        it["root"] = json!({"threshold": 1, "keys": [V2.write(&ROOT.public())]});
    });
    let keyring = Keyring {
        format: 1,
        serial: KeyringSerial(2),
        product: "test".into(),
        root: set(V1, &[ROOT.public()]),
        signing: set(V1, &[SIGNING.public()]),
        profile: None,
    };
    let mut second = keyring.to_envelope();
    ROOT.sign(&mut second);
    assert_eq!(verify(&[first.clone(), second]), other(2));
    first.signatures[0].signature[40] ^= 1;
    let unsigned = verify(&[first]).unwrap_err();
    assert!(matches!(unsigned, KeyringError::Link { link: 1, .. }));
}

#[test]
fn a_slot_verifies_under_keys_of_both_algorithms() {
    let image = Image::new(Kind::System, "1", 2);
    let both = image.clone().with_keys_v2();
    let expect = Expect {
        target: Target::A,
        floor: Level::new(2, 1),
    };
    let verify = |trust: &Trust, image: &Image| {
        let parts = SlotParts {
            header: image.header(Target::A),
            envelope: image.envelope.clone(),
            keyring: image.keyring.clone(),
        };
        trust.verify(&parts, &expect).map(|it| it.digest)
    };
    assert_eq!(verify(&trust_v2(), &both), Ok(image.digest));
    for (trust, image) in [(trust(), &both), (trust_v2(), &image)] {
        let error = verify(&trust, image).unwrap_err();
        let mixed = matches!(error, Rejected::Keyring(KeyringError::OtherFormat { .. }));
        assert!(mixed, "{error}");
        assert!(error.to_string().ends_with("never mixed"), "{error}");
    }
    // The threshold is two: neither algorithm is enough.
    for at in 0..2 {
        let mut one = both.clone();
        let mut envelope = Envelope::parse(&one.envelope).unwrap();
        envelope.signatures.remove(at);
        one.envelope = envelope.to_json();
        let unsigned = DsseError::Signatures { good: 1, needed: 2 };
        assert_eq!(
            verify(&trust_v2(), &one),
            Err(Rejected::Signature(unsigned))
        );
    }
}
