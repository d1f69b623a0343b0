//! What tells network interfaces apart.

plain_text!(
    /// A pattern for interface or driver names.
    InterfaceGlob,
    "interface-glob",
    "enp1s0",
    |text| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@*?".contains(&b);
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(fits) {
            Ok(())
        } else {
            Err("a name such as enp1s0 is wanted; `*` and `?` stand for any characters".to_owned())
        }
    }
);

plain_text!(
    /// A hardware address.
    MacAddress,
    "mac-address",
    "52:54:00:12:34:56",
    |text| {
        let pair = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if text.split(':').count() == 6 && text.split(':').all(pair) {
            Ok(())
        } else {
            Err("a hardware address is wanted, such as 52:54:00:12:34:56".to_owned())
        }
    }
);

impl InterfaceGlob {
    /// Whether a name fits the pattern.
    pub(crate) fn matches(&self, name: &str) -> bool {
        fn fits(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) if fits(rest, name) => true,
                (Some((b'*', _)), Some((_, behind))) => fits(pattern, behind),
                (Some((b'?', rest)), Some((_, behind))) => fits(rest, behind),
                (Some((one, rest)), Some((other, behind))) => one == other && fits(rest, behind),
                _ => false,
            }
        }
        fits(self.as_str().as_bytes(), name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, lo) in [
            ("*", true),
            ("l*", true),
            ("??", true),
            ("lo", true),
            ("*o*", true),
            ("en*", false),
            ("l", false),
            ("lo?", false),
        ] {
            let glob: InterfaceGlob = pattern.parse().unwrap();
            assert_eq!(glob.matches("lo"), lo, "{pattern}");
        }
    }
}
