//! The console of the recovery system: who gets in there, by which units.
//!
//! | unit | `open` | `password` | `none` |
//! | --- | --- | --- | --- |
//! | `getty@`, `serial-getty@` | logs root in | as Debian has it: asks for name and password | masked |
//! | `autovt@`, `console-getty`, `container-getty@` | as Debian has it | as Debian has it | masked |
//! | `emergency`, `rescue` | as Debian has it: sulogin(8), which has nothing for a root without a password | the same | masked |
//! | `debug-shell`, `systemd-firstboot` | as Debian has it: not wanted by anything | masked | masked |
//!
//! Masks lie in /etc/systemd/system, where no unit of a package comes before them. What a recipe lays over is looked at
//! when the tree is whole ([`check`]). With `none` the kernel takes no commands from a keyboard either.
//!
//! Where emergency mode is masked, the unit that asked for it stays failed and the rest goes on; if the service does
//! not come up, `sternpost-overdue.timer` starts the machine again. Ctrl-Alt-Del restarts it in each case.

use anyhow::{Result, bail};

use crate::recipe::Console;
use crate::root::tree::{Node, Tree};
use crate::root::{Content, ImageFile};

const UNITS: &str = "/usr/lib/systemd/system";
const MASKS: &str = "/etc/systemd/system";

/// Both log root in, on a screen and on a serial line.
const AUTOMATIC: [(&str, &str); 2] = [
    ("getty@.service", "--noclear"),
    (
        "serial-getty@.service",
        "--keep-baud 115200,57600,38400,9600",
    ),
];

/// What asks for a name at a console, or for root's password.
const LOGINS: [&str; 7] = [
    "getty@.service",
    "serial-getty@.service",
    // Asked for by logind, when somebody changes to another screen.
    "autovt@.service",
    "console-getty.service",
    "container-getty@.service",
    "emergency.service",
    "rescue.service",
];

/// A shell of root's for whom a word of the command line asks, and what would ask for a new password of root's.
const UNASKED: [&str; 2] = ["debug-shell.service", "systemd-firstboot.service"];

/// What a recovery system's root has for its console.
pub(super) fn files(console: Console) -> Vec<ImageFile> {
    match console {
        Console::Open => AUTOMATIC.into_iter().map(logs_root_in).collect(),
        Console::Password => masked(console).map(mask).collect(),
        Console::None => masked(console).map(mask).chain([no_sysrq()]).collect(),
    }
}

fn masked(console: Console) -> impl Iterator<Item = &'static str> {
    let (logins, unasked): (&[_], &[_]) = match console {
        Console::Open => (&[], &[]),
        Console::Password => (&[], &UNASKED),
        Console::None => (&LOGINS, &UNASKED),
    };
    logins.iter().chain(unasked).copied()
}

/// Looks whether what a recipe laid over opens what is to be closed.
///
/// # Errors
/// A unit of a console logs somebody in, or is there in place of its mask.
pub(super) fn check(tree: &Tree, console: Console) -> Result<()> {
    if console == Console::Open {
        return Ok(());
    }
    for unit in masked(console) {
        let path = format!("{}/{unit}", MASKS.trim_start_matches('/'));
        let node = tree.get(&path).map(|entry| &entry.node);
        if !matches!(node, Some(Node::Symlink(target)) if target == "/dev/null") {
            bail!(
                "{unit} is to be masked, and the recipe lays something else over /{path}; remove it, or choose \
                 `recovery.console` again"
            );
        }
    }
    for (path, entry) in tree.iter() {
        let is_of_console = path.contains("/systemd/system/") && path.contains("getty@");
        if let (true, Node::File(bytes)) = (is_of_console, &entry.node)
            && String::from_utf8_lossy(&bytes.read()?).contains("--autologin")
        {
            bail!(
                "/{path} logs somebody in without a password; remove it, or set `recovery.console = \"open\"`"
            );
        }
    }
    Ok(())
}

/// sysctl.d(5), after Debian's own file: with it a keyboard, or a break on a serial line, could restart the machine or
/// make its disks read-only.
fn no_sysrq() -> ImageFile {
    ImageFile {
        path: "/usr/lib/sysctl.d/90-sternpost-console.conf".to_owned(),
        content: Content::Bytes(b"kernel.sysrq = 0\n".to_vec(), 0o644),
    }
}

/// systemd.unit(5): what links to /dev/null is never started, whoever asks for it.
fn mask(unit: &str) -> ImageFile {
    ImageFile {
        path: format!("{MASKS}/{unit}"),
        content: Content::Symlink("/dev/null".to_owned()),
    }
}

fn logs_root_in((unit, options): (&str, &str)) -> ImageFile {
    let text = format!(
        "# Who stands at the console of a machine that starts nothing else may repair it.\n\
         [Service]\n\
         ExecStart=\n\
         ExecStart=-/sbin/agetty --autologin root {options} %I $TERM\n"
    );
    ImageFile {
        path: format!("{UNITS}/{unit}.d/50-recovery.conf"),
        content: Content::Bytes(text.into_bytes(), 0o644),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tree::{Bytes, Entry};

    /// The units that are masked, and the text of all the others.
    fn made(console: Console) -> (Vec<String>, Vec<String>) {
        let (mut masked, mut texts) = (Vec::new(), Vec::new());
        for file in files(console) {
            match file.content {
                Content::Symlink(target) if target == "/dev/null" => {
                    let unit = file.path.strip_prefix("/etc/systemd/system/");
                    masked.push(unit.unwrap().to_owned());
                }
                Content::Bytes(text, 0o644) => texts.push(String::from_utf8(text).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        (masked, texts)
    }

    #[test]
    fn nobody_has_to_log_in_at_an_open_console() {
        let (masked, texts) = made(Console::Open);
        assert!(masked.is_empty(), "{masked:?}");
        assert_eq!(texts.len(), 2);
        for text in texts {
            assert!(
                text.contains("\nExecStart=\nExecStart=-/sbin/agetty --autologin root "),
                "{text}"
            );
        }
    }

    #[test]
    fn a_console_with_a_password_has_debians_prompt_and_no_shell_beside_it() {
        let (masked, texts) = made(Console::Password);
        assert_eq!(masked, ["debug-shell.service", "systemd-firstboot.service"]);
        assert!(texts.is_empty(), "{texts:?}");
    }

    #[test]
    fn what_a_recipe_lays_over_may_not_open_it() {
        let with = |console: Console, path: &str, text: &str| {
            let mut tree = Tree::default();
            for file in files(console) {
                let node = match file.content {
                    Content::Symlink(target) => Node::Symlink(target),
                    Content::Bytes(bytes, _) => Node::File(Bytes::Memory(bytes.into())),
                    other => panic!("{other:?}"),
                };
                tree.insert(&file.path, Entry::new(node, 0o644));
            }
            let bytes = Bytes::Memory(text.as_bytes().into());
            tree.insert(path, Entry::new(Node::File(bytes), 0o644));
            check(&tree, console).map_err(|it| it.to_string())
        };
        let drop_in = "/usr/lib/systemd/system/getty@.service.d/50-recovery.conf";
        let logs_in = "[Service]\nExecStart=-/sbin/agetty --autologin root %I\n";
        assert_eq!(with(Console::Open, drop_in, logs_in), Ok(()));
        for console in [Console::Password, Console::None] {
            assert_eq!(with(console, drop_in, "[Service]\nTTYReset=no\n"), Ok(()));
            let refused = with(console, drop_in, logs_in).unwrap_err();
            assert!(refused.contains("without a password"), "{refused}");
            let unit = "/etc/systemd/system/debug-shell.service";
            let refused = with(console, unit, "[Service]\n").unwrap_err();
            assert!(refused.contains("is to be masked"), "{refused}");
        }
    }

    #[test]
    fn where_there_is_no_console_nothing_asks_for_a_name_and_nothing_gives_a_shell() {
        let (masked, texts) = made(Console::None);
        assert_eq!(texts, ["kernel.sysrq = 0\n"]);
        for unit in [
            "getty@.service",
            "serial-getty@.service",
            "autovt@.service",
            "emergency.service",
            "rescue.service",
            "debug-shell.service",
        ] {
            assert!(masked.iter().any(|it| it == unit), "{unit}");
        }
    }
}
