//! Login names and password hashes.

plain_text!(
    /// A login name.
    UserName,
    "user-name",
    "admin",
    |text| {
        let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let other = |b: u8| first(b) || b.is_ascii_digit() || b == b'-';
        let mut bytes = text.bytes();
        if !bytes.next().is_some_and(first) || !bytes.all(other) || text.len() > 31 {
            return Err("a user name begins with a lower-case letter and has at most 31 of \
                        a-z, 0-9, `-` and `_`"
                .to_owned());
        }
        if is_reserved(text) {
            return Err(format!(
                "`{text}` belongs to the system; choose another name and set `admin: true` if this \
                 user is to administer the machine"
            ));
        }
        Ok(())
    }
);

secret_text!(
    /// A hashed password, as crypt(5) writes it.
    PasswordHash,
    "password-hash",
    "$y$j9T$…",
    check_password_hash
);

/// Names that the image itself uses (Debian's base system, systemd, ssh).
const RESERVED: &[&str] = &[
    "_apt",
    "_chrony",
    "_ssh",
    "backup",
    "bin",
    "daemon",
    "dhcpcd",
    "games",
    "irc",
    "kube",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "news",
    "nobody",
    "polkitd",
    "proxy",
    "root",
    "sshd",
    "sudo",
    "sync",
    "sys",
    "syslog",
    "tss",
    "uucp",
    "www-data",
    "wheel",
    "adm",
    "shadow",
    "tty",
    "disk",
    "staff",
    "users",
    "nogroup",
    "kvm",
    "render",
    "input",
    "kmem",
    "utmp",
    "video",
    "audio",
    "cdrom",
    "dip",
    "floppy",
    "fax",
    "voice",
    "tape",
    "operator",
    "src",
    "sasl",
    "plugdev",
    "dialout",
    "sgx",
    "clock",
    "crontab",
];

/// Whether a name is the system's.
fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with("systemd-")
}

/// A hash as crypt(5) describes it, of the kinds that are still thought safe.
fn check_password_hash(text: &str) -> Result<(), String> {
    const HELP: &str =
        "a hash is wanted, as `mkpasswd -m yescrypt` or `openssl passwd -6` prints it";
    if !text.starts_with('$') {
        return Err(format!("this is not a password hash; {HELP}"));
    }
    let fits = |b: u8| b.is_ascii_graphic() && !b":;*!\\".contains(&b);
    let known = ["$y$", "$gy$", "$7$", "$2b$", "$6$", "$5$"]
        .iter()
        .any(|kind| text.starts_with(kind));
    if text.starts_with("$1$") {
        return Err(format!("MD5 hashes are not accepted; {HELP}"));
    }
    if !known || text.len() < 20 || text.len() > 512 || !text.bytes().all(fits) {
        return Err(format!(
            "this hash is incomplete or of a kind that is not known; {HELP}"
        ));
    }
    Ok(())
}
