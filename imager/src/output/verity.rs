//! The dm-verity tree of a root filesystem, over all cores.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use boot_core::manifest::{CHUNK_SIZE, Root};
use boot_core::types::Salt;
use boot_core::verity::{BLOCK, BlockHasher, TreeBuilder};
use boot_core::{Digest, RootHash};

/// The salt of a product's trees: one for all its versions, so that equal blocks have equal leaves
/// and an upgrade can tell by them what the machine has already.
#[must_use]
pub fn salt(product: &str) -> Salt {
    Salt(Digest::of(format!("sternpost verity salt\n{product}").as_bytes()).0)
}

#[derive(Clone, Debug)]
pub struct Hashed {
    /// One hash a data block.
    pub leaves: Vec<u8>,
    /// The whole tree, as it follows the data.
    pub tree: Vec<u8>,
    /// What the manifest says of it.
    pub root: Root,
}

/// Hashes a filesystem image.
///
/// # Errors
/// It cannot be read, or is no whole number of blocks.
pub fn hash_file(path: &Path, salt: Salt) -> Result<Hashed> {
    let what = || format!("hashing {}", path.display());
    let file = File::open(path).with_context(what)?;
    let data_size = file.metadata().with_context(what)?.len();
    ensure!(
        data_size > 0 && data_size.is_multiple_of(BLOCK),
        "{} has {data_size} bytes, which is no whole number of 4096-byte blocks",
        path.display()
    );
    let hasher = BlockHasher::new(&salt);
    let leaves = in_chunks(data_size, |offset, length| {
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset).with_context(what)?;
        let mut leaves = Vec::with_capacity(length / 128);
        hasher.append_leaves(&chunk, &mut leaves);
        Ok(leaves)
    })?
    .concat();
    let mut builder = TreeBuilder::new(&salt);
    builder.push(&leaves);
    let tree = builder.finish().context("hashing an empty filesystem")?;
    let hash: RootHash = tree.root;
    let tree = tree.to_bytes(&leaves);
    let root = Root {
        hash,
        salt,
        data_size,
        size: data_size + tree.len() as u64,
        chunk_size: CHUNK_SIZE,
    };
    Ok(Hashed { leaves, tree, root })
}

/// Runs `work` over each chunk of `size` bytes on all cores; results come in order.
pub fn in_chunks<T: Send>(
    size: u64,
    work: impl Fn(u64, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let count = usize::try_from(size.div_ceil(CHUNK_SIZE)).context("too many chunks")?;
    in_parallel(count, |n| {
        let offset = n as u64 * CHUNK_SIZE;
        let length = usize::try_from(CHUNK_SIZE.min(size - offset)).context("chunk size")?;
        work(offset, length)
    })
}

/// Runs `work` for 0..`count` on all cores; results come in order.
pub fn in_parallel<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let results: Mutex<Vec<Option<Result<T>>>> = Mutex::new((0..count).map(|_| None).collect());
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(count.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let result = work(n);
                    if result.is_err() {
                        next.store(count, Ordering::Relaxed);
                    }
                    if let Ok(mut results) = results.lock()
                        && let Some(place) = results.get_mut(n)
                    {
                        *place = Some(result);
                    }
                }
            });
        }
    });
    let results = results
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a worker stopped"))?;
    let mut done = Vec::with_capacity(count);
    let mut missing = false;
    for result in results {
        match result {
            Some(result) => done.push(result?),
            None => missing = true,
        }
    }
    ensure!(!missing, "a worker stopped before its work was done");
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn results_come_in_order_and_errors_come_out() {
        assert_eq!(in_parallel(100, Ok).unwrap(), (0..100).collect::<Vec<_>>());
        let error = in_parallel(100, |n| {
            ensure!(n != 37, "thirty-seven");
            Ok(n)
        });
        assert_eq!(error.unwrap_err().to_string(), "thirty-seven");
        assert!(in_parallel(0, Ok).unwrap().is_empty());
    }

    #[test]
    fn a_tree_is_that_of_its_leaves() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let blocks = 1100usize;
        for n in 0..blocks {
            file.write_all(&vec![n as u8; 4096]).unwrap();
        }
        let hashed = hash_file(file.path(), salt("edge")).unwrap();
        assert_eq!(hashed.leaves.len(), blocks * 32);
        assert_eq!(
            hashed.root.size,
            hashed.root.data_size + hashed.tree.len() as u64
        );
        assert_eq!(
            TreeBuilder::root_of(&salt("edge"), &hashed.leaves),
            Some(hashed.root.hash)
        );
        file.write_all(b"tail").unwrap();
        assert!(hash_file(file.path(), salt("edge")).is_err());
    }
}
