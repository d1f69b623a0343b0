//! Public keys for SSH.

use base64ct::{Base64, Encoding as _};

plain_text!(
    /// A line of authorized_keys.
    SshKey,
    "ssh-key",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvb3R5IGZvciBhIHN0ZXJucG9zdCBwcm9maWxl me@example",
    check_ssh_key
);

impl SshKey {
    /// The key itself, without its comment.
    pub(crate) fn body(&self) -> Option<&str> {
        self.0.split(' ').filter(|word| !word.is_empty()).nth(1)
    }
}

/// One public key as in authorized_keys, without options: `TYPE BASE64 [COMMENT]`.
fn check_ssh_key(text: &str) -> Result<(), String> {
    const TYPES: [&str; 7] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    if text.contains("PRIVATE KEY") {
        return Err(
            "this is a private key; the public one is wanted (the file ending in .pub)".to_owned(),
        );
    }
    if text.chars().any(char::is_control) {
        return Err("an SSH key is one line".to_owned());
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().unwrap_or_default();
    if kind == "ssh-dss" {
        return Err(
            "DSA keys are not accepted any more; make one with `ssh-keygen -t ed25519`".to_owned(),
        );
    }
    if !TYPES.contains(&kind) {
        return Err("a public SSH key is wanted, such as `ssh-ed25519 AAAA… name`".to_owned());
    }
    let body = words.next().unwrap_or_default();
    let data = Base64::decode_vec(body)
        .map_err(|_| "the key after its type is cut short or not base64".to_owned())?;
    let mut fields = Fields(&data);
    if fields.next() != Some(kind.as_bytes()) {
        return Err(format!(
            "the key after its type is not an SSH key of the type {kind}"
        ));
    }
    let whole = match kind {
        "ssh-ed25519" => fields.key(32),
        "ssh-rsa" => {
            fields.number().is_some()
                && {
                    let bits = fields.number().map(bits);
                    if let Some(bits @ 0..1024) = bits {
                        return Err(format!(
                            "a key of {bits} bits is not accepted by the SSH server; make one with `ssh-keygen -t ed25519`"
                        ));
                    }
                    bits.is_some()
                }
        }
        "sk-ssh-ed25519@openssh.com" => fields.key(32) && fields.next().is_some(),
        "sk-ecdsa-sha2-nistp256@openssh.com" => fields.point("nistp256") && fields.next().is_some(),
        _ => fields.point(kind.strip_prefix("ecdsa-sha2-").unwrap_or_default()),
    };
    if !whole || !fields.0.is_empty() {
        return Err(
            "the key after its type is cut short or damaged; copy the whole line again".to_owned(),
        );
    }
    Ok(())
}

/// How many bits a number has.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros());
    number
        .len()
        .saturating_sub(zeros)
        .saturating_mul(8)
        .saturating_sub(usize::try_from(first).unwrap_or(0))
}

/// What is left of a key: strings, each after its length in four bytes. Sources: RFC 4253, 6.6; RFC 5656, 3.1;
/// RFC 8709, 4; OpenSSH, PROTOCOL.u2f.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn key(&mut self, length: usize) -> bool {
        self.next().is_some_and(|key| key.len() == length)
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        self.next().filter(|number| !number.is_empty())
    }

    /// The name of a curve and a point on it, not compressed.
    fn point(&mut self, curve: &str) -> bool {
        let length = match curve {
            "nistp256" => 65,
            "nistp384" => 97,
            _ => 133,
        };
        self.next() == Some(curve.as_bytes()) && self.key(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 7] = [
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBARqBAA+yu8W2NTbqcLK2Eod+P/rfSVjGTJt/9M8tq/seCsgyqMtIiUFWdq7jjYJVWKX98nWSm9ikCOJ/iAJOMw=",
        "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBJw3Ekc3aCI2zfGl7qRcPCqZREVW+fqJpUqALhjBHT2s7A6jeFVYYE9aMa7BYcd4MCUM1JD+fIbvA63m4N6d7UD/DmmkAv4sxq2sBKUATS6e3jTbANbXRWqeweBXJalstQ==",
        "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAHGqU5ee0i1+3QYlgxPBj1Su7CcB93e2Z60NXgpQ3YbyFiGGR0G2SYSGSLdIVMLi8a9PwgsB/q7XlaXNIq/PC1qNAESOKwsvBaarHW68nzY+cDndBOjrJnsYzr3/bmtVebwpZT2x0Mf+KulB1yuFiNbNWbFRfzatvT5VrwRSi3j4yaWLw==",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGiJKqnXar0Fwy8uzPG3YjpYP7gTXT0jcTbsE3CRwz+0",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCtstUE27JXGE2Y8c+0a5tYCbcscSAKu9UilWLw0FFL+gySeSZ5sYwqKwMVHMEzZ7ZbX6O01gzevR6vcNk8x5hjyJduhgZPm2txY83tXTsx/jyw6T/zEtuKU9SEIswf9n17r/c2pUi5s+nXCisXoFbimAYg0elMrtsYSkOSHLEFZANeck5zhRYMJs7YEQ4ZwFtPYALXwdAmQ+LlO7MCy2otslIjOvnm1JuMQgypr84ZSa+hIyrej43Pk29sN9j1U87sDd8X39axt0s9DTTvS+JMRsSCuCBqvF69oQqeAtHoEpamPYZ78oXCO/f6OtxB676RJNBcrZM7LQ6VOIowseEz",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAAABHNzaDo=",
        "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEc3NoOg==",
    ];

    #[test]
    fn keys_of_every_type_are_read() {
        for key in KEYS {
            check_ssh_key(key).unwrap();
            check_ssh_key(&format!("{key} somebody@somewhere")).unwrap();
        }
    }

    /// What a terminal or an editor cut off does not become a key that lets nobody in.
    #[test]
    fn a_key_that_was_cut_short_is_refused() {
        for key in KEYS {
            let (kind, body) = key.split_once(' ').unwrap();
            for length in 0..body.len() {
                let cut = format!("{kind} {}", &body[..length]);
                assert!(check_ssh_key(&cut).is_err(), "{cut}");
            }
            let data = Base64::decode_vec(body).unwrap();
            for length in 0..data.len() {
                let cut = format!("{kind} {}", Base64::encode_string(&data[..length]));
                assert!(check_ssh_key(&cut).is_err(), "{cut}");
            }
            let longer = format!(
                "{kind} {}",
                Base64::encode_string(&[&data[..], &[0]].concat())
            );
            assert!(check_ssh_key(&longer).is_err(), "{longer}");
        }
    }

    #[test]
    fn a_key_of_another_type_than_it_says_is_refused() {
        let (_, body) = KEYS[0].split_once(' ').unwrap();
        let e = check_ssh_key(&format!("ssh-ed25519 {body}")).unwrap_err();
        assert!(e.contains("not an SSH key of the type ssh-ed25519"), "{e}");
    }
}
