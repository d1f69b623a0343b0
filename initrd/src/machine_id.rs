//! The machine's id, as systemd wants it: made at the first start, kept on `state`.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use boot_core::Digest;

use crate::failure::{Context, Failure};

/// The machine's id: what `state` has, or a new one, which is kept there. The flag says that it is new; a failure that
/// it could not be kept, which leaves it good for this start.
///
/// `unique` is anything that differs between machines and starts. It is mixed in because the kernel may not have
/// gathered randomness yet, and waiting for it takes seconds on a machine without a source of it. An id has to be
/// unique, not secret.
#[must_use]
pub fn machine_id(folder: &Path, unique: &[u8]) -> (String, bool, Option<Failure>) {
    let path = folder.join("machine-id");
    if let Ok(text) = small_file::read_to_string(&path)
        && is_machine_id(text.trim())
    {
        return (text.trim().to_owned(), false, None);
    }
    let mut random = [0u8; 32];
    // Without any randomness `unique` has to do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::INSECURE);
    let mut mixed = random.to_vec();
    mixed.extend_from_slice(unique);
    let mut bytes = Digest::of(&mixed).0;
    // A UUID of version 4 (RFC 9562) without its dashes, as machine-id(5) wants.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let id: String = bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let kept =
        keep(&path, &format!("{id}\n")).context("keeping the machine's id in", path.display());
    (id, true, kept.err())
}

/// Writes a file so that after a power cut it is there whole or not at all.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    // Whatever is in the way: opening a pipe would wait for a reader.
    let _ = fs::remove_file(&draft);
    let mut file = File::create_new(&draft)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    // Not waited for: should the name be lost to a power cut, the next start is the first one again.
    fs::rename(&draft, path)
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let (first, new, failure) = machine_id(folder.path(), b"");
        assert!(new && failure.is_none() && is_machine_id(&first), "{first}");
        let again = machine_id(folder.path(), b"");
        assert!(again.0 == first && !again.1 && again.2.is_none());
    }

    #[test]
    fn a_damaged_machine_id_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("machine-id"), "uninitialized\n").unwrap();
        assert!(machine_id(folder.path(), b"").1);
    }

    #[test]
    fn pipes_in_its_place_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["machine-id", "machine-id.new"] {
            let kind = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let path = folder.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        }
        let (id, new, failure) = machine_id(folder.path(), b"");
        assert!(new && failure.is_none(), "{failure:?}");
        assert_eq!(machine_id(folder.path(), b"").0, id);
    }

    #[test]
    fn an_id_that_cannot_be_kept_is_still_an_id() {
        let (id, new, failure) = machine_id(Path::new("/nonexistent"), b"");
        assert!(new && is_machine_id(&id) && failure.is_some());
    }
}
