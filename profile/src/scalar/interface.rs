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

impl MacAddress {
    /// Whether a network card can have it: no group of cards, and not nothing.
    pub(crate) fn is_of_a_card(&self) -> bool {
        let mut digits = self.as_str().chars().filter_map(|it| it.to_digit(16));
        let is_group = digits.clone().nth(1).is_none_or(|it| it % 2 == 1);
        !is_group && digits.any(|it| it > 0)
    }
}

impl InterfaceGlob {
    /// Whether it stands for several names.
    pub(crate) fn is_pattern(&self) -> bool {
        self.as_str().contains(['*', '?'])
    }

    /// Whether every name that fits `other` fits this one too. Of two patterns with `?` that differ nothing is known.
    pub(crate) fn takes_all_of(&self, other: &Self) -> bool {
        let sure = !other.is_pattern() || !self.as_str().contains('?');
        self == other || (sure && self.matches(other.as_str()))
    }

    /// Whether a name fits the pattern.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.as_str().as_bytes(), name.as_bytes());
        // Behind the last star, and what it has not taken yet: no star before it needs to take more.
        let mut star: Option<(&[u8], &[u8])> = None;
        while let Some((first, behind)) = name.split_first() {
            match pattern.split_first() {
                Some((b'*', rest)) => {
                    star = Some((rest, name));
                    pattern = rest;
                }
                Some((one, rest)) if *one == b'?' || one == first => {
                    (pattern, name) = (rest, behind);
                }
                _ => {
                    let Some((rest, [_, left @ ..])) = star else {
                        return false;
                    };
                    star = Some((rest, left));
                    (pattern, name) = (rest, left);
                }
            }
        }
        pattern.iter().all(|it| *it == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_all_of_a_narrower_one() {
        for (wide, narrow, takes) in [
            ("*", "en*", true),
            ("en*", "enp?s0", true),
            ("en*", "enp1s0", true),
            ("en?", "en*", false),
            ("enp*", "en*", false),
            ("e?", "e?", true),
            ("*a*b", "enab", true),
            ("*a*b", "abab", true),
            ("*a*b", "aba", false),
            ("a*b*", "acb", true),
        ] {
            let [wide, narrow] = [wide, narrow].map(|it| it.parse::<InterfaceGlob>().unwrap());
            assert_eq!(wide.takes_all_of(&narrow), takes, "{wide} {narrow}");
        }
    }

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
