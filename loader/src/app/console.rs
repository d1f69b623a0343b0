//! One line of text for each thing the loader does, on every console that the firmware drives.

use alloc::string::String;
use core::fmt::{self, Write};

use super::firmware;

/// Prints one line, `sternpost: …`. A console that fails is no reason to stop.
pub(super) fn print(arguments: fmt::Arguments<'_>) {
    // One call for the whole line: firmware consoles cost per call.
    let mut line = String::from("sternpost: ");
    let _ = line.write_fmt(arguments);
    line.push('\n');
    if !firmware::has_console() {
        return;
    }
    uefi::system::with_stdout(|console| {
        let _ = console.write_str(&line);
    });
}

/// Prints one line about what the loader does.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::app::console::print(core::format_args!($($arguments)*)) };
}
pub(crate) use say;
