//! Running a tool of the tools tree and keeping what it said.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// Runs a command to its end; what it printed becomes part of the error when it fails.
///
/// # Errors
/// It cannot be started, or ends with anything but success.
pub async fn run(what: &str, command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{what}: starting {}", program(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() {
            String::from_utf8_lossy(&output.stdout)
        } else {
            said
        };
        bail!(
            "{what}: {} ended with {}:\n{}",
            program(command),
            output.status,
            said.trim_end()
        );
    }
    Ok(output.stdout)
}

fn program(command: &Command) -> String {
    command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned()
}

/// Makes or empties a file of `size` bytes, all of it a hole.
pub fn hole(path: &Path, size: u64) -> Result<()> {
    std::fs::File::create(path)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("making {} of {size} bytes", path.display()))
}
