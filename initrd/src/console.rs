//! Words for people: the kernel log, and every console at once when a start fails.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write;

/// Priority "notice" of syslog, facility "daemon": in the log, not on a quiet console.
const NOTICE: u8 = 3 << 3 | 5;

/// Lets more than ten lines in five seconds through to the kernel log.
pub fn unlimit() {
    // A kernel that was told otherwise on its command line refuses, and is right to.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
}

/// One line into the kernel log.
pub fn log(line: impl Display) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record. There is nowhere to report that the log cannot be written.
        let record = format!("<{NOTICE}>sternpost: {line}\n");
        let _ = kmsg.write_all(record.as_bytes());
    }
}

/// One line into the kernel log and on every console that the kernel uses.
pub fn announce(line: impl Display) {
    let line = line.to_string();
    log(&line);
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut paths: Vec<String> = active
        .split_whitespace()
        .map(|name| format!("/dev/{name}"))
        .collect();
    if paths.is_empty() {
        paths.push("/dev/console".to_owned());
    }
    for path in paths {
        if let Ok(mut console) = OpenOptions::new().write(true).open(path) {
            let text = format!("sternpost: {line}\r\n");
            let _ = console.write_all(text.as_bytes());
        }
    }
}
