//! Name, clock, SSH server. Sources: hosts(5), timesyncd.conf(5), sshd_config(5).

use crate::contribution::{HEADER, file};
use crate::{File, Profile, When};

/// Where the SSH server's key lives: on `state`, made at the first boot.
pub(super) const HOST_KEYS: &str = "/var/lib/sternpost/ssh";

pub(super) fn render(profile: &Profile, hostname: &str, files: &mut Vec<File>) {
    let hosts = format!(
        "{HEADER}127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {}\n",
        match hostname.split_once('.') {
            Some((short, _)) => format!("{hostname} {short}"),
            None => hostname.to_owned(),
        }
    );
    files.push(file("/etc/hosts", hosts, When::Early));

    if !profile.time.servers.is_empty() {
        let servers: Vec<&str> = profile.time.servers.iter().map(|s| s.as_str()).collect();
        let text = format!("{HEADER}[Time]\nNTP={}\n", servers.join(" "));
        files.push(file(
            "/etc/systemd/timesyncd.conf.d/50-sternpost.conf",
            text,
            When::Early,
        ));
    }

    // The keys that the profile names are the only way in: what lies in a home on `state` is not
    // asked, so that nobody lets himself in for good by writing there.
    let sshd = format!(
        "{HEADER}HostKey {HOST_KEYS}/ssh_host_ed25519_key\n\
         AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin no\n"
    );
    files.push(file(
        "/etc/ssh/sshd_config.d/10-sternpost.conf",
        sshd,
        When::Early,
    ));
}
