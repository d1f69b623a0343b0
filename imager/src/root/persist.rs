//! Directories that outlive an upgrade: the list of them in the image, and the places where they are to appear.
//!
//! The agent binds each to its directory on `state`. Below /etc and /var it makes the place itself; everywhere else the
//! root is read-only, so that the place has to be in the image.

use anyhow::{Result, bail};

use crate::recipe::Persist;
use crate::root::tree::{Entry, Node, Tree};

/// What the agent may write to.
const WRITABLE: [&str; 2] = ["etc", "var"];

/// `/usr/lib/sternpost/persist.conf`.
pub(super) fn list(entries: &[Persist]) -> String {
    let mut text = String::from("# What outlives an upgrade; made from the recipe.\n");
    for entry in entries {
        let scope = if entry.per_epoch {
            "per-epoch"
        } else {
            "shared"
        };
        text.push_str(&format!("{scope} {}\n", entry.path));
    }
    text
}

/// Makes the places that no package brought.
///
/// # Errors
/// There is something else in such a place.
pub(super) fn make_places(tree: &mut Tree, entries: &[Persist]) -> Result<()> {
    for Persist { path, .. } in entries {
        let path = path.trim_matches('/');
        let top = path.split('/').next().unwrap_or_default();
        if WRITABLE.contains(&top) {
            continue;
        }
        let place = tree.place(path).unwrap_or_default();
        match tree.get(&place).map(|entry| &entry.node) {
            // The agent would look for the rest of an absolute link in its own root.
            _ if place != path => {
                bail!(
                    "/{path} cannot persist: links lead from it to /{place}; name that in `persist`"
                )
            }
            Some(Node::Symlink(target)) => {
                bail!("/{path} cannot persist: it is a link to {target}; name that in `persist`")
            }
            Some(Node::File(_)) => {
                bail!("/{path} cannot persist: it is a file, and only directories do")
            }
            Some(Node::Directory) => {}
            None => tree.put(path, Entry::new(Node::Directory, 0o755))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tree::Bytes;

    fn persist(path: &str) -> Persist {
        Persist {
            path: path.to_owned(),
            per_epoch: false,
        }
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let file = Node::File(Bytes::Memory(b"x".as_slice().into()));
        tree.insert("/opt/tool", Entry::new(file, 0o644));
        tree.insert("/root", Entry::new(Node::Directory, 0o700));
        let link = Node::Symlink("/var/data".to_owned());
        tree.insert("/data", Entry::new(link, 0o777));
        tree
    }

    #[test]
    fn a_place_that_no_package_brings_is_made() {
        let mut tree = tree();
        let entries = ["/srv/box/deep", "/root", "/etc/box", "/var/lib/box"].map(persist);
        make_places(&mut tree, &entries).unwrap();
        for made in ["srv", "srv/box", "srv/box/deep"] {
            let entry = tree.get(made).unwrap();
            assert_eq!(
                (&entry.node, entry.mode),
                (&Node::Directory, 0o755),
                "{made}"
            );
        }
        assert_eq!(tree.get("root").unwrap().mode, 0o700, "as it was");
        for left in ["etc/box", "var/lib/box"] {
            assert!(tree.get(left).is_none(), "{left} is the agent's to make");
        }
    }

    #[test]
    fn a_place_that_cannot_be_one_is_refused() {
        for (path, why) in [
            ("/opt/tool", "it is a file"),
            ("/opt/tool/below", "/opt/tool is a file"),
            ("/data", "it is a link to /var/data"),
            ("/data/below", "links lead from it to /var/data/below"),
        ] {
            let refused = make_places(&mut tree(), &[persist(path)]).unwrap_err();
            assert!(refused.to_string().contains(why), "{path}: {refused}");
        }
    }
}
