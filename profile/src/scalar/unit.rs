//! systemd units.

plain_text!(
    /// The name of a systemd unit, with its suffix.
    UnitName,
    "systemd-unit",
    "chrony.service",
    |text| {
        const SUFFIXES: [&str; 8] =
            [".service", ".socket", ".target", ".mount", ".timer", ".path", ".swap", ".automount"];
        let fits = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if text.len() > 255 || !text.bytes().all(fits) || text.starts_with('.') {
            return Err("a unit name is wanted, such as sshd.service".to_owned());
        }
        if SUFFIXES.iter().any(|suffix| text.ends_with(suffix)) {
            Ok(())
        } else {
            Err(format!("a unit name needs its suffix: {text}.service?"))
        }
    }
);

impl UnitName {
    /// Whether it is what units are made of, and none itself.
    pub(crate) fn is_template(&self) -> bool {
        self.as_str().contains("@.")
    }
}
