//! Files that a profile rendered to.

use std::fs;

use profile::{Rendered, When};

use crate::failure::{Doing, Result};
use crate::os::files::write_atomic;
use crate::os::paths::Paths;

/// Writes the files that are due at `when`. What is already there is left alone.
pub(crate) fn write_files(paths: &Paths, rendered: &Rendered, when: When) -> Result<usize> {
    let mut written = 0;
    for file in rendered.files.iter().filter(|f| f.when == when) {
        let path = paths.at(&file.path);
        let same = fs::symlink_metadata(&path).is_ok_and(|m| {
            use std::os::unix::fs::PermissionsExt as _;
            m.is_file() && m.permissions().mode() & 0o7777 == file.mode
        }) && small_file::read(&path).is_ok_and(|found| found == file.content);
        if !same {
            write_atomic(&path, &file.content, file.mode)
                .doing(|| format!("writing {}", path.display()))?;
            written += 1;
        }
    }
    Ok(written)
}
