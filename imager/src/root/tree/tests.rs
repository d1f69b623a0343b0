use super::*;

/// As `setcap cap_net_raw+ep` writes it.
const CAP_NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn memory(content: &str) -> Node {
    Node::File(Bytes::Memory(content.as_bytes().into()))
}

fn round_trip(tree: &Tree) -> (tempfile::TempDir, Tree) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    tree.write_tar(File::create(&path).unwrap(), 1_000).unwrap();
    let mut read = Tree::default();
    read.read_tar(&path).unwrap();
    (directory, read)
}

#[test]
fn what_is_written_is_read_again() {
    let mut tree = Tree::default();
    let long = format!("usr/{}/{}", "d".repeat(90), "f".repeat(120));
    tree.insert(&long, Entry::new(memory("long"), 0o644));
    tree.insert("usr/bin/ping", {
        let mut entry = Entry::new(memory("ping"), 0o755);
        entry
            .attributes
            .insert("security.capability".to_owned(), CAP_NET_RAW.to_vec());
        entry.gid = 7;
        entry
    });
    tree.insert("bin", Entry::new(Node::Symlink("usr/bin".into()), 0o777));
    let (_directory, read) = round_trip(&tree);
    assert_eq!(read.iter().count(), tree.iter().count());
    for (name, entry) in tree.iter() {
        let got = read.get(name).unwrap();
        assert!(got.same_metadata(entry), "{name}");
        if let (Node::File(a), Node::File(b)) = (&entry.node, &got.node) {
            assert_eq!(a.read().unwrap(), b.read().unwrap());
        }
    }
    assert!(read.exists("/bin/ping"));
    assert!(!read.exists("/bin/pong"));
}

#[test]
fn hard_links_stay_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("content");
    std::fs::write(&file, "x".repeat(10_000)).unwrap();
    let mut tree = Tree::default();
    for name in ["a", "b"] {
        let node = Node::File(Bytes::of_file(&file).unwrap());
        tree.insert(name, Entry::new(node, 0o644));
    }
    let mut archive = Vec::new();
    tree.write_tar(&mut archive, 0).unwrap();
    assert!(archive.len() < 15_000);
    let (_directory, read) = round_trip(&tree);
    assert_eq!(read.get("a"), read.get("b"));
}

#[test]
fn a_merged_usr_stays_merged() {
    let mut tree = Tree::default();
    tree.insert("./lib", Entry::new(Node::Symlink("usr/lib".into()), 0o777));
    tree.insert("./lib/x.so", Entry::new(memory("x"), 0o644));
    assert!(tree.get("usr/lib/x.so").is_some());
    assert!(tree.exists("lib/x.so"));
}

#[test]
fn links_among_parents_are_followed() {
    let mut tree = Tree::default();
    let link = |tree: &mut Tree, path: &str, target: &str| {
        tree.insert(path, Entry::new(Node::Symlink(target.into()), 0o777));
    };
    link(&mut tree, "opt/vendor", "../usr/lib/vendor/./current");
    link(&mut tree, "usr/lib/vendor/current", "/usr/lib/vendor/1.2");
    link(&mut tree, "a", "b");
    link(&mut tree, "b", "a");
    tree.put("/opt/vendor/bin/x", Entry::new(memory("x"), 0o755))
        .unwrap();
    assert!(tree.get("usr/lib/vendor/1.2/bin/x").is_some());
    assert!(tree.exists("/opt/vendor/bin/x"));
    assert!(tree.below("opt/vendor").is_empty());
    // The link itself may be replaced.
    tree.put("/opt/vendor", Entry::new(memory("x"), 0o755))
        .unwrap();
    assert!(matches!(
        tree.get("opt/vendor").unwrap().node,
        Node::File(_)
    ));
    let error = tree
        .put("/a/x", Entry::new(memory("x"), 0o755))
        .unwrap_err();
    assert!(error.to_string().contains("circles"), "{error}");
}

#[test]
fn what_the_running_system_would_not_show_is_refused() {
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("lock")).unwrap();
    std::fs::write(host.path().join("lock/x"), "x").unwrap();
    let mut tree = Tree::default();
    tree.insert(
        "var/lock",
        Entry::new(Node::Symlink("/run/lock".into()), 0o777),
    );
    tree.insert("etc/file", Entry::new(memory("x"), 0o644));
    let refused = |tree: &mut Tree, to: &str| {
        let error = tree.add_host(host.path(), to, None).unwrap_err();
        error.to_string()
    };
    let error = refused(&mut tree, "/var");
    assert!(
        error.contains("leads to /run/lock/x") && error.contains("tmpfiles.d"),
        "{error}"
    );
    assert!(refused(&mut tree, "/tmp/x").contains("below /tmp"));
    assert!(refused(&mut tree, "/state/x").contains("below /state"));
    assert!(refused(&mut tree, "/etc/file").contains("/etc/file is a file"));
}

#[test]
fn a_directory_that_is_there_stays_as_it_is() {
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("work")).unwrap();
    std::fs::write(host.path().join("work/x"), "x").unwrap();
    let mut tree = Tree::default();
    let mut own = Entry::new(Node::Directory, 0o700);
    own.uid = 7;
    tree.insert("srv/real/work", own.clone());
    tree.insert(
        "opt/link",
        Entry::new(Node::Symlink("/srv/real".into()), 0o777),
    );
    tree.add_host(host.path(), "/opt/link", None).unwrap();
    assert_eq!(tree.get("srv/real/work"), Some(&own));
    assert!(tree.get("srv/real/work/x").is_some());
}

#[test]
fn nothing_leads_out_of_the_tree() {
    let mut tree = Tree::default();
    tree.insert("../../etc/passwd", Entry::new(memory("x"), 0o644));
    assert_eq!(tree.iter().count(), 0);
}

#[test]
fn patterns_stay_within_a_name() {
    let mut tree = Tree::default();
    for path in [
        "usr/lib/modules/6.12/kernel/sound/core/snd.ko",
        "usr/lib/modules/6.12/kernel/net/x.ko",
        "usr/lib/firmware/ti-connectivity/a",
        "usr/lib/firmware/tigon/b",
    ] {
        tree.insert(path, Entry::new(memory("x"), 0o644));
    }
    tree.remove_matching("/usr/lib/modules/*/kernel/sound");
    tree.remove_matching("/lib/firmware/ti-*");
    tree.remove_matching("/usr/*/kernel");
    let left: Vec<_> = tree.iter().map(|(name, _)| name).collect();
    assert!(left.contains(&"usr/lib/modules/6.12/kernel/net/x.ko"));
    assert!(left.contains(&"usr/lib/firmware/tigon/b"));
    assert!(
        !left
            .iter()
            .any(|name| name.contains("sound") || name.contains("ti-"))
    );
}

#[test]
fn renaming_takes_along_what_is_below() {
    let mut tree = Tree::default();
    tree.insert("var/lib/x", Entry::new(memory("x"), 0o600));
    tree.rename("var", "usr/share/factory/var");
    assert!(tree.get("var").is_none());
    assert_eq!(tree.get("usr/share/factory/var/lib/x").unwrap().mode, 0o600);
}
