//! The console of the recovery system: who gets in there, by which units.
//!
//! | unit | `open` | `password` | `none` |
//! | --- | --- | --- | --- |
//! | `getty@`, `serial-getty@` | logs root in | as Debian has it: asks for name and password | masked |
//! | `autovt@`, `console-getty`, `container-getty@` | as Debian has it | as Debian has it | masked |
//! | `emergency`, `rescue` | as Debian has it: sulogin(8), which has nothing for a root without a password | the same | masked |
//! | `debug-shell`, `systemd-firstboot` | as Debian has it: not wanted by anything | masked | masked |
//!
//! Where emergency mode is masked, the unit that asked for it stays failed and the rest goes on; if the service does
//! not come up, `sternpost-overdue.timer` starts the machine again. Ctrl-Alt-Del restarts it in each case.

use crate::recipe::Console;
use crate::root::{Content, ImageFile};

const UNITS: &str = "/usr/lib/systemd/system";

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
        Console::Password => UNASKED.into_iter().map(mask).collect(),
        Console::None => LOGINS.into_iter().chain(UNASKED).map(mask).collect(),
    }
}

/// systemd.unit(5): what links to /dev/null is never started, whoever asks for it.
fn mask(unit: &str) -> ImageFile {
    ImageFile {
        path: format!("{UNITS}/{unit}"),
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

    /// The units that are masked, and the text of all the others.
    fn made(console: Console) -> (Vec<String>, Vec<String>) {
        let (mut masked, mut texts) = (Vec::new(), Vec::new());
        for file in files(console) {
            match file.content {
                Content::Symlink(target) if target == "/dev/null" => {
                    let unit = file.path.strip_prefix("/usr/lib/systemd/system/");
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
        assert_eq!(masked, UNASKED);
        assert!(texts.is_empty(), "{texts:?}");
    }

    #[test]
    fn where_there_is_no_console_nothing_asks_for_a_name_and_nothing_gives_a_shell() {
        let (masked, texts) = made(Console::None);
        assert!(texts.is_empty(), "{texts:?}");
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
