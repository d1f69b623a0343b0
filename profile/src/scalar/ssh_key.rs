//! Public keys for SSH.

plain_text!(
    /// A line of authorized_keys.
    SshKey,
    "ssh-key",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvb3R5IGZvciBhIHN0ZXJucG9zdCBwcm9maWxl me@example",
    check_ssh_key
);

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
