//! Where a bundle lies.

plain_text!(
    /// The address of a bundle: http:// or https://, without user and password.
    BundleUrl,
    "bundle-url",
    "https://images.example.com/edge/stable.spb",
    check_bundle_url
);

/// The part between scheme and path, and the host in it.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port),
        _ => (authority, "80"),
    };
    Some((rest, host, port))
}

impl BundleUrl {
    /// The server: a name, or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = split(&self.0).map_or("", |(_, host, _)| host);
        host.trim_matches(['[', ']'])
    }
}

fn check_bundle_url(text: &str) -> Result<(), String> {
    let wanted =
        || "an http:// or https:// address is wanted, at most 2048 printable characters".to_owned();
    let (rest, host, port) = split(text).ok_or_else(wanted)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    // A password with a '/', '?' or '#' in it ends the authority too early, and looks like a port.
    if authority.contains('@') || (!is_port && rest.contains('@')) {
        return Err("an address without user and password is wanted".to_owned());
    }
    if host.is_empty()
        || !is_port
        || text.len() > 2048
        || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(wanted());
    }
    Ok(())
}
