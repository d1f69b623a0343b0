//! People. /etc begins anew at every boot, so users are made anew: by systemd-sysusers, which also
//! takes the hashed password, handed over as a credential in a file that only root reads. Homes are
//! on `state` and outlive images, so a user's id depends on the name alone.
//! Sources: sysusers.d(5), systemd-sysusers(8) "Credentials", tmpfiles.d(5), sudoers(5).

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::host::HOST_KEYS;
use crate::contribution::{HEADER, file};
use crate::schema::User;
use crate::{Condition, File, Step, When};

const SYSUSERS: &str = "/etc/sysusers.d/50-sternpost.conf";
const TMPFILES: &str = "/etc/tmpfiles.d/50-sternpost.conf";
const CREDENTIALS: &str = "/run/sternpost/credentials";

/// User ids of people: above those that packages and adduser give, below those of systemd-homed.
const FIRST_ID: u32 = 20_000;
const IDS: u32 = 20_000;

pub(super) fn render(users: &[User], files: &mut Vec<File>, early: &mut Vec<Step>) {
    if !users.is_empty() {
        accounts(users, files);
        early.push(
            Step::run("make the users", &["/usr/bin/systemd-sysusers", SYSUSERS])
                .with_env("CREDENTIALS_DIRECTORY", CREDENTIALS),
        );
        early.push(Step::run(
            "make their homes",
            &["/usr/bin/systemd-tmpfiles", "--create", TMPFILES],
        ));
    }
    host_key(early);
}

fn accounts(users: &[User], files: &mut Vec<File>) {
    let mut sysusers = HEADER.to_owned();
    let mut tmpfiles = format!("{HEADER}d /var/home 0755 root root -\n");
    let mut sudoers = HEADER.to_owned();
    for (user, id) in users.iter().zip(ids(users)) {
        let name = user.name.as_str();
        sysusers.push_str(&format!(
            "u {name} {id} \"{name}\" /var/home/{name} /bin/bash\n"
        ));
        tmpfiles.push_str(&format!("d /var/home/{name} 0700 {name} {name} -\n"));
        if user.admin {
            sysusers.push_str(&format!("m {name} systemd-journal\n"));
            // Who can only log in by key has no password that sudo could ask for.
            let ask = if user.password_hash.is_some() {
                ""
            } else {
                "NOPASSWD: "
            };
            sudoers.push_str(&format!("{name} ALL=(ALL:ALL) {ask}ALL\n"));
        }
        if !user.ssh_keys.is_empty() {
            let keys: String = user
                .ssh_keys
                .iter()
                .map(|key| format!("{}\n", key.as_str().trim()))
                .collect();
            files.push(file(
                format!("/etc/ssh/authorized_keys.d/{name}"),
                keys,
                When::Early,
            ));
        }
        if let Some(hash) = &user.password_hash {
            files.push(File {
                path: format!("{CREDENTIALS}/passwd.hashed-password.{name}"),
                mode: 0o600,
                content: hash.as_str().as_bytes().to_vec(),
                when: When::Early,
            });
        }
    }
    files.push(file(SYSUSERS, sysusers, When::Early));
    files.push(file(TMPFILES, tmpfiles, When::Early));
    if users.iter().any(|user| user.admin) {
        let content = sudoers.into_bytes();
        let path = "/etc/sudoers.d/50-sternpost".into();
        files.push(File {
            path,
            mode: 0o440,
            content,
            when: When::Early,
        });
    }
}

/// An id for each user, from the name. Two names that fall on one id are told apart in the order of
/// the profile.
fn ids(users: &[User]) -> Vec<u32> {
    let mut taken = BTreeSet::new();
    users
        .iter()
        .map(|user| {
            let digest = Sha256::digest(user.name.as_str().as_bytes());
            let number = digest
                .iter()
                .take(4)
                .fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
            let mut id = FIRST_ID + number % IDS;
            while !taken.insert(id) {
                id = if id + 1 < FIRST_ID + IDS {
                    id + 1
                } else {
                    FIRST_ID
                };
            }
            id
        })
        .collect()
}

/// The SSH server's key, once, in a way that a power cut cannot leave half of it in place.
fn host_key(early: &mut Vec<Step>) {
    let key = format!("{HOST_KEYS}/ssh_host_ed25519_key");
    let new = format!("{HOST_KEYS}/new/key");
    let conditions = [
        Condition::Exists {
            path: "/usr/bin/ssh-keygen".into(),
        },
        Condition::Missing { path: key.clone() },
    ];
    let dir = format!("{HOST_KEYS}/new");
    for (name, command) in [
        (
            "clear an unfinished SSH host key",
            vec!["/usr/bin/rm", "-rf", &dir],
        ),
        (
            "make room for the SSH host key",
            vec!["/usr/bin/mkdir", "-p", "-m", "0700", &dir],
        ),
        (
            "make the SSH host key",
            vec![
                "/usr/bin/ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "",
                "-f",
                &new,
            ],
        ),
        ("write the SSH host key", vec!["/usr/bin/sync", &new]),
        (
            "put the SSH host key in its place",
            vec!["/usr/bin/mv", "-T", &new, &key],
        ),
    ] {
        early.push(Step::run(name, &command).only_if(&conditions).optional());
    }
}
