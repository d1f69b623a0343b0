//! A verdict, said where somebody may stand: on every console that the kernel writes to.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;

use crate::os::paths::Paths;

/// Writes one line. A console that cannot be written to is nobody's loss: the journal has the line too.
pub(crate) fn announce(paths: &Paths, line: &str) {
    eprintln!("bootctl: {line}");
    let active = std::fs::read_to_string(paths.at("/sys/class/tty/console/active"));
    for name in active.unwrap_or_default().split_whitespace() {
        // Never the service's controlling terminal, and never waited for.
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let console = OpenOptions::new()
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(paths.at("/dev").join(name));
        if let Ok(mut console) = console {
            let _ = write!(console, "\r\nsternpost: {line}\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_active_console_gets_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        for path in ["/sys/class/tty/console", "/dev"] {
            std::fs::create_dir_all(paths.at(path)).unwrap();
        }
        std::fs::write(
            paths.at("/sys/class/tty/console/active"),
            "tty0 ttyS0 gone\n",
        )
        .unwrap();
        for name in ["tty0", "ttyS0", "tty7"] {
            std::fs::write(paths.at("/dev").join(name), "").unwrap();
        }
        announce(&paths, "healthy");
        let said = |name| std::fs::read_to_string(paths.at("/dev").join(name)).unwrap();
        assert_eq!(said("tty0"), "\r\nsternpost: healthy\r\n");
        assert_eq!(said("ttyS0"), said("tty0"));
        assert_eq!(said("tty7"), "");
    }
}
