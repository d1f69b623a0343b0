//! Certificates, as text.

use base64ct::{Base64, Encoding as _};

plain_text!(
    /// Certificates of authorities, in PEM.
    Certificates,
    "certificates",
    "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----",
    check_certificates
);

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// That each is whole; whether it is good for anything is for who checks certificates by it.
fn check_certificates(text: &str) -> Result<(), String> {
    if text.contains("PRIVATE KEY") {
        return Err("there is a private key in it; the certificate alone is wanted".to_owned());
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut found = 0;
    while let Some(line) = lines.next() {
        if line != BEGIN {
            return Err(format!(
                "certificates in PEM are wanted, each from `{BEGIN}` to `{END}`"
            ));
        }
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(END) => break,
                Some(line) => body.push_str(line),
                None => return Err(format!("a certificate is cut short: `{END}` is missing")),
            }
        }
        found += 1;
        if !Base64::decode_vec(&body).is_ok_and(|der| is_one_sequence(&der)) {
            return Err(format!(
                "certificate {found} is cut short or damaged; copy the whole of it again"
            ));
        }
    }
    match found {
        0 => Err("there is no certificate in it".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the bytes are one DER sequence from beginning to end, as every certificate is. Source: X.690, 8.1.3.
fn is_one_sequence(der: &[u8]) -> bool {
    let Some((&[0x30, first], rest)) = der.split_first_chunk::<2>() else {
        return false;
    };
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let Some((bytes, rest)) = rest.split_at_checked(usize::from(first & 0x7f)) else {
                return false;
            };
            let length = bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return false,
    };
    length > 0 && rest.len() == length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", Base64::encode_string(der))
    }

    #[test]
    fn whole_certificates_are_taken() {
        for length in [1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let head: &[u8] = match length {
                ..=0x7f => &[0x30, length as u8],
                0x80..=0xff => &[0x30, 0x81, length as u8],
                0x100..=0xffff => &[0x30, 0x82, (length >> 8) as u8, length as u8],
                _ => &[0x30, 0x83, 1, 0, 0],
            };
            let der = [head, &vec![7; length][..]].concat();
            check_certificates(&pem(&der)).unwrap();
            check_certificates(&format!("{0}\n{0}", pem(&der))).unwrap();
            let longer = [&der[..], &[0]].concat();
            for wrong in [&der[..der.len() - 1], &longer[..]] {
                let said = check_certificates(&pem(wrong)).unwrap_err();
                assert!(said.contains("cut short or damaged"), "{said}");
            }
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, says) in [
            ("", "no certificate"),
            ("a note", "in PEM"),
            ("-----BEGIN CERTIFICATE-----\nMAA=", "cut short"),
            (
                "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----",
                "damaged",
            ),
            ("-----BEGIN EC PRIVATE KEY-----\n", "private key"),
        ] {
            let said = check_certificates(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 0],
            &[0x31, 1, 7],
            &[0x30, 0x80, 7],
            &[0x30, 0x84, 0, 0, 0, 1, 7],
        ] {
            assert!(!is_one_sequence(wrong), "{wrong:?}");
        }
    }
}
