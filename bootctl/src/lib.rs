//! The boot controller of an appliance: command line and service.
//!
//! A library, so that tests and a crash simulator run over disks of their own what runs in the field;
//! the program is `main.rs`.
//!
//! What stands below in this list is used by what stands above, and never the other way round:
//!
//! | module | holds |
//! | --- | --- |
//! | [`cli`] | the command line as a whole, and its help |
//! | [`commands`] | one file a command: its arguments and what it does |
//! | [`service`] | `bootctl serve`: from userland to a verdict, and after it; what it decides about the slot that runs is [`service::step`], about idle recovery [`service::step::idle`]; for what a machine restarts stands above `Service::reboot` |
//! | [`health`] | whether the machine is well |
//! | [`profile`] | which profile is in force, and its early part |
//! | [`bring_up`] | bringing up what a profile asks for |
//! | [`watchdog`] | what covers which stretch of a start, and what the loader is told of it |
//! | [`loader`] | updating the loader on both ESPs, over any device |
//! | [`install`] | writing a bundle into a slot, over any device and source |
//! | [`source`] | where bundles come from |
//! | [`state`] | whose the `state` filesystem is, how the last run on it ended, making it anew |
//! | [`boot`] | changes of the boot state, in their order, over any device; whether a slot would start |
//! | [`machine`] | what is known of this machine and this start |
//! | `kubernetes` | the Kubernetes API, which is reached nowhere else |
//! | [`os`] | what is asked of the operating system: files, devices, locks, time, processes, systemd |
//! | [`failure`], [`output`], [`progress`] | what is said, and how |

pub mod boot;
pub(crate) mod bring_up;
pub mod cli;
pub mod commands;
pub mod failure;
pub mod health;
pub mod install;
mod kubernetes;
pub mod loader;
pub mod machine;
pub mod os;
pub mod output;
pub mod profile;
pub mod progress;
pub mod service;
pub mod source;
pub mod state;
pub mod watchdog;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// The modules, in the order of the list above, from the bottom.
    const ORDER: [&str; 18] = [
        "failure",
        "output",
        "progress",
        "os",
        "kubernetes",
        "machine",
        "boot",
        "state",
        "source",
        "install",
        "loader",
        "watchdog",
        "bring_up",
        "profile",
        "health",
        "service",
        "commands",
        "cli",
    ];

    fn files(dir: &Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
        let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|it| it.is_dir());
        let below = dirs.iter().flat_map(|it| self::files(it));
        files.into_iter().chain(below).collect()
    }

    /// What else opens something to write into it, and is meant to: locks, devices, consoles, UEFI variables, and what has
    /// no name and is gone with the process.
    const OPEN_TO_WRITE: [&str; 6] = [
        "os/lock.rs",
        "os/device.rs",
        "os/console.rs",
        "loader/efi.rs",
        "watchdog.rs",
        "install/leaves.rs",
    ];

    /// Each file of this crate, without its tests.
    fn code() -> impl Iterator<Item = (std::path::PathBuf, String)> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        files(&source).into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            (path, code.to_owned())
        })
    }

    #[test]
    fn files_are_written_by_os_files_alone() {
        for (path, code) in code() {
            let writes = ["fs::write(", "File::create(", "OpenOptions"];
            let writes = writes.iter().any(|it| code.contains(it));
            let mut may = OPEN_TO_WRITE.iter().chain(&["os/files.rs"]);
            let may = may.any(|it| path.ends_with(it));
            assert!(!writes || may, "{}", path.display());
        }
    }

    /// What anybody may have written is read by `small_file`: a pipe or a huge file must not hold a machine up.
    #[test]
    fn state_is_read_by_small_file_alone() {
        for (path, code) in code() {
            let reads = ["fs::read(", "fs::read_to_string(", "File::open("];
            let reads = reads.iter().any(|it| code.contains(it));
            let names_state = code.contains(".state(\"");
            assert!(!reads || !names_state, "{}", path.display());
        }
    }

    #[test]
    fn imports_go_one_way() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let rank = |module: &str| ORDER.iter().position(|it| *it == module);
        let mut wrong = vec![];
        for path in files(&source) {
            let name = path.strip_prefix(&source).unwrap();
            let module = name.iter().next().unwrap().to_string_lossy();
            let Some(own) = rank(module.trim_end_matches(".rs")) else {
                assert!(
                    matches!(&*module, "lib.rs" | "main.rs"),
                    "{module} is not in the list"
                );
                continue;
            };
            let text = fs::read_to_string(&path).unwrap();
            let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                let used = line.split("crate::").skip(1);
                wrong.extend(
                    used.flat_map(|it| it.split(['{', '}', ',', ' ']))
                        .filter_map(|it| {
                            let used = it.split([':', ';', '(']).next().unwrap_or("");
                            let above = rank(used)? > own;
                            above.then(|| format!("{}: {line}", name.display()))
                        }),
                );
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
