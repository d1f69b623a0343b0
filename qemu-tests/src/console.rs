//! What a machine writes on its serial console: a file that grows, and waits on its lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A console log. Waits go forward only: each begins after the line that ended the one before.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    read: u64,
    /// Bytes of a line that has not ended: decoded when it has, because a read may end within a character.
    pending: Vec<u8>,
    started: Instant,
}

impl Console {
    /// The log in `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Console {
        Console {
            path: path.to_owned(),
            read: 0,
            pending: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Where the log is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything written so far.
    #[must_use]
    pub fn text(&self) -> String {
        std::fs::read(&self.path)
            .map(|bytes| plain(&bytes))
            .unwrap_or_default()
    }

    /// How many lines so far contain `pattern`.
    #[must_use]
    pub fn count(&self, pattern: &str) -> usize {
        self.text()
            .lines()
            .filter(|line| line.contains(pattern))
            .count()
    }

    /// Waits for a line that contains one of `patterns`; gives the line.
    ///
    /// # Errors
    /// None came within `limit`, or `alive` says that the machine is gone.
    pub fn wait_for(
        &mut self,
        patterns: &[&str],
        limit: Duration,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before reading, so that the last words of a machine that just ended are still read.
            let running = alive();
            self.read_more()?;
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = plain(&self.pending.drain(..=end).collect::<Vec<_>>());
                if patterns.iter().any(|pattern| line.contains(pattern)) {
                    return Ok(line.trim_end().to_owned());
                }
            }
            // A login prompt has no end of line.
            let begun = plain(&self.pending);
            if patterns.iter().any(|pattern| begun.contains(pattern)) {
                self.pending.clear();
                return Ok(begun);
            }
            if !running {
                bail!("the machine ended; {patterns:?} never came on its console");
            }
            if Instant::now() >= deadline {
                bail!(
                    "{patterns:?} did not come on the console within {} s (the machine runs for {} s)",
                    limit.as_secs(),
                    self.started.elapsed().as_secs()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let Ok(mut file) = File::open(&self.path) else {
            return Ok(());
        };
        let error = || format!("cannot read the console log {}", self.path.display());
        file.seek(SeekFrom::Start(self.read)).with_context(error)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(error)?;
        self.read += bytes.len() as u64;
        self.pending.append(&mut bytes);
        Ok(())
    }

    /// The last `lines` lines, for an error message.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Text without what moves a terminal's cursor: firmware and systemd send escape sequences.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // To the letter that ends it.
                Some('[') => {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                    chars.next();
                }
                Some(']') => {
                    while chars.next_if(|c| *c != '\u{7}').is_some() {}
                    chars.next();
                }
                _ => {}
            },
            '\r' | '\0' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(
            plain(b"\x1b[2J\x1b[01;01H[ \x1b[0;32m OK \x1b[0m ] done\r\n"),
            "[  OK  ] done\n"
        );
    }

    #[test]
    fn what_a_read_cuts_through_is_put_together() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut console = Console::new(file.path());
        let whole = "\u{1b}[0;32mgr\u{fc}n\u{1b}[0m, done\n".as_bytes();
        for part in [&whole[..4], &whole[4..10], &whole[10..]] {
            assert_eq!(console.read_more().unwrap(), ());
            assert!(!plain(&console.pending).contains("done"));
            file.write_all(part).unwrap();
        }
        let line = console.wait_for(&["done"], Duration::from_secs(1), &mut || true);
        assert_eq!(line.unwrap(), "gr\u{fc}n, done");
    }

    #[test]
    fn waits_go_forward() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut console = Console::new(file.path());
        let second = Duration::from_secs(1);
        file.write_all(b"one\r\ntwo\r\none\r\nlogin: ").unwrap();
        assert_eq!(
            console.wait_for(&["one"], second, &mut || true).unwrap(),
            "one"
        );
        assert_eq!(
            console.wait_for(&["one"], second, &mut || true).unwrap(),
            "one"
        );
        assert_eq!(
            console.wait_for(&["login:"], second, &mut || true).unwrap(),
            "login: "
        );
        let error = console
            .wait_for(&["one"], second, &mut || false)
            .unwrap_err();
        assert!(error.to_string().contains("the machine ended"));
        assert_eq!(console.count("one"), 2);
        assert_eq!(console.tail(2), "one\nlogin: ");
    }
}
