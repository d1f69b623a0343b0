//! What a login name, a key and a password hash may look like.

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
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with("systemd-")
}

/// One public key as in authorized_keys, without options: `TYPE BASE64 [COMMENT]`.
pub(crate) fn check_ssh_key(text: &str) -> Result<(), String> {
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
    let data = body.trim_end_matches('=');
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    // The key begins with the length and the name of its own type.
    if data.len() < 40
        || body.len() - data.len() > 2
        || body.len() % 4 != 0
        || !data.bytes().all(base64)
    {
        return Err("the key after its type is cut short or not base64".to_owned());
    }
    if !data.starts_with("AAAA") {
        return Err("the key after its type is not an SSH key".to_owned());
    }
    Ok(())
}

/// A hash as crypt(5) describes it, of the kinds that are still thought safe.
pub(crate) fn check_password_hash(text: &str) -> Result<(), String> {
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
