//! systemd-networkd and systemd-resolved. Sources: systemd.network(5), resolved.conf(5).

use std::net::IpAddr;

use crate::contribution::{HEADER, file};
use crate::schema::{Interface, Network};
use crate::{File, When};

pub(super) fn render(network: &Network, files: &mut Vec<File>) {
    if network.interfaces.is_empty() {
        files.push(network_file(
            0,
            &format!("{HEADER}{}", everything_by_dhcp()),
        ));
    }
    for (n, interface) in network.interfaces.iter().enumerate() {
        files.push(network_file(n, &format!("{HEADER}{}", one(interface))));
    }
    if !network.dns.is_empty() || !network.search.is_empty() {
        let mut text = format!("{HEADER}[Resolve]\n");
        line(&mut text, "DNS", &network.dns);
        line(&mut text, "Domains", &network.search);
        files.push(file(
            "/etc/systemd/resolved.conf.d/50-sternpost.conf",
            text,
            When::Early,
        ));
    }
}

/// networkd takes the first file, by name, that matches.
fn network_file(n: usize, text: &str) -> File {
    file(
        format!("/etc/systemd/network/50-sternpost-{n:03}.network"),
        text,
        When::Early,
    )
}

/// `Kind=!*`: hardware only. Bridges and the ends of pods' cables are none of networkd's business.
fn everything_by_dhcp() -> &'static str {
    "[Match]\nName=en* eth*\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n"
}

fn one(interface: &Interface) -> String {
    let mut text = String::from("[Match]\n");
    let matches = &interface.matches;
    line(&mut text, "Name", matches.name.as_slice());
    line(&mut text, "MACAddress", matches.mac.as_slice());
    line(&mut text, "Driver", matches.driver.as_slice());
    text.push_str("Kind=!*\n");
    // Its addresses, and those of a cluster on it, are the kernel's and the bring-up's.
    let by_name = matches.name.as_ref().map(|name| name.matches("lo"));
    if by_name.unwrap_or(matches.mac.is_none()) {
        text.push_str("Type=!loopback\n");
    }
    text.push_str("\n[Link]\n");
    line(&mut text, "MTUBytes", interface.mtu.as_slice());
    let required = if interface.required { "yes" } else { "no" };
    text.push_str(&format!("RequiredForOnline={required}\n\n[Network]\n"));
    text.push_str(if interface.uses_dhcp() {
        "DHCP=yes\n"
    } else {
        "DHCP=no\n"
    });
    for address in &interface.addresses {
        text.push_str(&format!("Address={address}\n"));
    }
    let (on_link, within): (Vec<IpAddr>, Vec<IpAddr>) = interface
        .gateways
        .iter()
        .partition(|gateway| interface.reaches_on_link(**gateway));
    for gateway in within {
        text.push_str(&format!("Gateway={gateway}\n"));
    }
    line(&mut text, "DNS", &interface.dns);
    for gateway in on_link {
        text.push_str(&format!(
            "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\n"
        ));
    }
    text
}

/// `KEY=a b c`, or nothing if there are none.
fn line<T: ToString>(text: &mut String, key: &str, values: &[T]) {
    if !values.is_empty() {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        text.push_str(&format!("{key}={}\n", values.join(" ")));
    }
}
