//! Where a bundle lies.

plain_text!(
    /// The address of a bundle: http:// or https://, without user and password.
    BundleUrl,
    "bundle-url",
    "https://images.example.com/edge/stable.spb",
    check_bundle_url
);

fn check_bundle_url(text: &str) -> Result<(), String> {
    let wanted =
        || "an http:// or https:// address is wanted, at most 2048 printable characters".to_owned();
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(wanted)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port),
        _ => (authority, "80"),
    };
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
