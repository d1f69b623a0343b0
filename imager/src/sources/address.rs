//! Addresses, and what of them may be seen.
//!
//! An address may say who asks (`https://name:password@mirror/`), or hold a token in its query. [`shown`] is
//! how an address stands in messages, locks and lists, in an image above all; [`shown_in`] does the same to
//! what tools say. The password itself goes to the server, and to apt in a file that only its
//! owner reads, for as long as apt asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use base64ct::{Base64, Encoding as _};
use percent_encoding::percent_decode_str;

/// What stands for a value that is not shown.
const HIDDEN: &str = "…";

/// The parts of an address.
struct Parts<'a> {
    /// With `://`.
    scheme: &'a str,
    /// `name:password`, as it stands.
    user: Option<&'a str>,
    /// Host and port.
    host: &'a str,
    path: &'a str,
    /// After `?`.
    query: Option<&'a str>,
    /// After `#`.
    fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// None for what is no address.
    fn of(address: &'a str) -> Option<Self> {
        let (scheme, rest) = address.split_at(address.find("://")? + 3);
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        // The colons of an IPv6 address are within brackets.
        let ip = authority
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let after = ip.map_or(authority, |(_, after)| after);
        let port = after.rsplit_once(':').map(|(_, port)| port);
        let at = authority.rfind('@').or_else(|| {
            // A password that should have been escaped: `name:pass/word@host`.
            let odd = port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()));
            rest.rfind('@').filter(|_| odd)
        });
        let (user, rest) = match at {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some(Self {
            scheme,
            user,
            host,
            path,
            query,
            fragment,
        })
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// An address as anybody may see it: without name and password, and without the values in its query.
#[must_use]
pub fn shown(address: &str) -> String {
    let Some(parts) = Parts::of(address) else {
        return address.to_owned();
    };
    let values = |text: &str, alone: fn(&str) -> &str| -> String {
        let words = text.split('&').map(|word| match word.split_once('=') {
            Some((name, _)) => format!("{name}={HIDDEN}"),
            None => alone(word).to_owned(),
        });
        words.collect::<Vec<_>>().join("&")
    };
    let mut text = format!("{}{}{}", parts.scheme, parts.host, parts.path);
    if let Some(query) = parts.query {
        text.push('?');
        text.push_str(&values(query, |_| HIDDEN));
    }
    if let Some(fragment) = parts.fragment {
        // Not sent to anybody: the name of a file in an archive, most often.
        text.push('#');
        text.push_str(&values(fragment, |word| word));
    }
    text
}

/// A text with every address in it as [`shown`].
#[must_use]
pub fn shown_in(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c);
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let start = rest[..at].rfind(|c| !in_scheme(c)).map_or(0, |i| {
            i + rest[i..].chars().next().map_or(1, char::len_utf8)
        });
        let end = rest[at..]
            .find(ends)
            .map_or(rest.len(), |length| at + length);
        done.push_str(&rest[..start]);
        done.push_str(&shown(&rest[start..end]));
        rest = &rest[end..];
    }
    done + rest
}

/// For serde: an address as [`shown`].
pub fn serialize_shown<S: serde::Serializer>(
    address: &str,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(address))
}

/// An address without name and password, and the header that says these to the server.
#[must_use]
pub fn request(address: &str) -> (String, Option<String>) {
    let Some(Parts {
        user: Some(user),
        scheme,
        ..
    }) = Parts::of(address)
    else {
        return (address.to_owned(), None);
    };
    let plain = address.replacen(&format!("{scheme}{user}@"), scheme, 1);
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let pair = format!("{}:{}", unescape(name), unescape(password));
    let header = format!("Basic {}", Base64::encode_string(pair.as_bytes()));
    (plain, Some(header))
}

/// A line of apt_auth.conf(5) for an address that has a name in it.
///
/// # Errors
/// Name or password cannot stand in such a line.
pub fn apt_auth(address: &str) -> Result<Option<String>> {
    let Some(Parts {
        user: Some(user),
        scheme,
        host,
        path,
        ..
    }) = Parts::of(address)
    else {
        return Ok(None);
    };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let (name, password) = (unescape(name), unescape(password));
    let odd = |c: char| c.is_whitespace() || c.is_control();
    ensure!(
        !name.is_empty() && !name.contains(odd) && !password.contains(odd),
        "the mirror {} has a name or password that apt cannot be told: the name is empty, or there is a space in it",
        shown(address)
    );
    let password = match password.as_str() {
        // A token stands alone.
        "" => String::new(),
        password => format!(" password {password}"),
    };
    Ok(Some(format!(
        "machine {scheme}{host}{path} login {name}{password}\n"
    )))
}

/// `%40` → `@`.
fn unescape(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Names and passwords of mirrors: a lock has addresses without them.
#[derive(Default)]
pub struct Credentials {
    /// By scheme, host and path, without a slash at its end.
    known: Mutex<BTreeMap<String, String>>,
}

impl Credentials {
    /// Remembers what an address says of who asks for what is below it.
    pub fn learn(&self, address: &str) {
        if let Some(Parts {
            user: Some(user),
            scheme,
            host,
            path,
            ..
        }) = Parts::of(address)
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let path = path.trim_end_matches('/');
            known.insert(format!("{scheme}{host}{path}"), user.to_owned());
        }
    }

    /// The address with what is known of the nearest one above it.
    #[must_use]
    pub fn complete(&self, address: &str) -> String {
        let Some(Parts {
            user: None, scheme, ..
        }) = Parts::of(address)
        else {
            return address.to_owned();
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let above = known.iter().filter(|(above, _)| {
            let below = address.strip_prefix(above.as_str());
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
        match above.max_by_key(|(above, _)| above.len()) {
            Some((_, user)) => address.replacen(scheme, &format!("{scheme}{user}@"), 1),
            None => address.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_who_asks_nor_values_are_shown() {
        for (address, expected) in [
            ("https://h/a.deb", "https://h/a.deb"),
            ("https://me:secret@h:8443/a.deb", "https://h:8443/a.deb"),
            ("https://secret@h", "https://h"),
            ("https://me:se@cret@h/a", "https://h/a"),
            ("https://me:sec/ret@h/a", "https://h/a"),
            ("https://me:sec?ret@h/a", "https://h/a"),
            (
                "https://h/a?token=secret&v=1#bin/a",
                "https://h/a?token=…&v=…#bin/a",
            ),
            ("https://h/a?secret", "https://h/a?…"),
            ("https://h/a#token=secret", "https://h/a#token=…"),
            ("https://h:80/@scope/a", "https://h:80/@scope/a"),
            (
                "https://[2001:db8::1]/@scope/a",
                "https://[2001:db8::1]/@scope/a",
            ),
            ("https://[::1]:80/@scope/a", "https://[::1]:80/@scope/a"),
            ("https://me:secret@[::1]:80/a", "https://[::1]:80/a"),
            (
                "go:k8s.io/kubernetes/cmd/kubelet@v1.36.3",
                "go:k8s.io/kubernetes/cmd/kubelet@v1.36.3",
            ),
            ("file:agent", "file:agent"),
        ] {
            let once = shown(address);
            assert_eq!(once, expected);
            assert_eq!(shown(&once), once);
        }
    }

    #[test]
    fn addresses_in_a_text_are_found() {
        let text = "Err:1 'https://me:secret@h/a?t=secret' 401\n\t<ftp://me:secret@i> “http://secret@j/b”: no";
        let seen = shown_in(text);
        assert!(!seen.contains("secret"), "{seen}");
        for left in [
            "Err:1 'https://h/a?t=…' 401\n\t<ftp://i> “http://j/b",
            ": no",
        ] {
            assert!(seen.contains(left), "{seen}");
        }
        assert_eq!(shown_in("no address: a//b, c:/d"), "no address: a//b, c:/d");
        assert_eq!(shown_in("://"), "://");
    }

    #[test]
    fn the_server_hears_who_asks() {
        let (address, header) = request("https://me:p%40ss@h/a?t=1");
        assert_eq!(address, "https://h/a?t=1");
        assert_eq!(
            header.unwrap(),
            format!("Basic {}", Base64::encode_string(b"me:p@ss"))
        );
        for plain in ["https://h/a", "https://[2001:db8::1]/@scope/a"] {
            assert_eq!(request(plain), (plain.to_owned(), None));
        }
    }

    #[test]
    fn apt_is_told_apart_from_the_address() {
        let line = apt_auth("https://me:p%40ss@h:8443/debian").unwrap();
        let expected = "machine https://h:8443/debian login me password p@ss\n";
        assert_eq!(line.as_deref(), Some(expected));
        assert_eq!(apt_auth("https://h/debian").unwrap(), None);
        for token in ["https://token@h/debian", "https://token:@h/debian"] {
            let line = apt_auth(token).unwrap();
            let expected = "machine https://h/debian login token\n";
            assert_eq!(line.as_deref(), Some(expected));
        }
        for wrong in ["https://me:a%20secret@h", "https://:secret@h"] {
            let error = apt_auth(wrong).unwrap_err().to_string();
            assert!(
                error.contains("https://h") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_a_mirror_was_given_goes_with_its_packages_alone() {
        let credentials = Credentials::default();
        credentials.learn("https://me:secret@h/debian");
        let complete = |address: &str| credentials.complete(address);
        assert_eq!(
            complete("https://h/debian/a.deb"),
            "https://me:secret@h/debian/a.deb"
        );
        for other in [
            "http://h/debian/a",
            "https://h/a",
            "https://h/debian-security/a",
            "https://h:1/debian/a",
            "https://h.example/a",
            "https://you:x@h/a",
        ] {
            assert_eq!(complete(other), other);
        }
        credentials.learn("https://you:other@h/debian/private/");
        credentials.learn("https://all@h");
        for (address, user) in [
            ("https://h/debian/a.deb", "me:secret"),
            ("https://h/debian/private/a.deb", "you:other"),
            ("https://h/debian/privately/a.deb", "me:secret"),
            ("https://h/ubuntu/a.deb", "all"),
        ] {
            let expected = address.replace("://", &format!("://{user}@"));
            assert_eq!(complete(address), expected);
        }
    }
}
