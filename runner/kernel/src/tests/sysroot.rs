//! Sysroots: what they put where, and that nothing of theirs leads out of the tree or takes what it does not have.

use hotcell_schema::persona::Persona;
use hotcell_schema::sysroot::{RootEntry, RootKind};
use proptest::prelude::*;

use super::NoMagic;
use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::fs::root;
use crate::fs::sysroot::place;
use crate::fs::tree::{Kind, Tree};
use crate::fs::walk::walk;

fn entry(path: &str, kind: RootKind) -> RootEntry {
    RootEntry {
        path: path.to_owned(),
        kind,
    }
}

fn file(path: &str, offset: u64, length: u64) -> RootEntry {
    let mode = 0o755;
    entry(path, RootKind::File { mode, offset, length })
}

fn link(path: &str, target: &str) -> RootEntry {
    entry(path, RootKind::Link(target.to_owned()))
}

fn placed(entries: &[RootEntry]) -> Result<Tree, String> {
    let mut tree = Tree::new(0, 1 << 20);
    root::build(&mut tree, &Persona::default(), &super::profile("x86_64"))?;
    let content = Bytes::of(b"0123456789".to_vec());
    place(&mut tree, &serde_json::to_vec(entries).unwrap(), &content)?;
    Ok(tree)
}

fn read(tree: &Tree, path: &str) -> Result<Vec<u8>, Errno> {
    let ino = walk(tree, &NoMagic, tree.root, path.as_bytes(), true)?.inode()?;
    tree.bytes(ino).map(<[u8]>::to_vec).ok_or(Errno::EISDIR)
}

#[test]
fn packages_meet_in_any_order() {
    let entries = [
        file("/lib/libc.so.6", 0, 4),
        file("/usr/lib/libm.so.6", 4, 2),
        entry("/lib", RootKind::Directory(0o755)),
        link("/lib", "usr/lib"),
        link("/lib64", "usr/lib64"),
        file("/lib64/ld.so", 6, 1),
        link("/var", "/tmp/var"),
        file("/etc/passwd", 7, 3),
        entry("/srv/open", RootKind::Directory(0o1777)),
    ];
    for turn in 0..entries.len() {
        let mut entries = entries.clone();
        entries.rotate_left(turn);
        let tree = placed(&entries).unwrap();
        assert_eq!(read(&tree, "/lib/libc.so.6").unwrap(), b"0123");
        assert_eq!(read(&tree, "/usr/lib/libc.so.6").unwrap(), b"0123");
        assert_eq!(read(&tree, "/lib/libm.so.6").unwrap(), b"45");
        assert_eq!(read(&tree, "/usr/lib64/ld.so").unwrap(), b"6");
        assert_eq!(
            read(&tree, "/etc/passwd").unwrap(),
            b"789",
            "over the built-in one"
        );
        // What the built-in root had in /var moved to where the link leads.
        assert_eq!(read(&tree, "/tmp/var/spool/cron"), Err(Errno::EISDIR));
        assert_eq!(read(&tree, "/var/spool/cron"), Err(Errno::EISDIR));
        let open = walk(&tree, &NoMagic, tree.root, b"/srv/open", true);
        assert_eq!(tree.get(open.unwrap().inode().unwrap()).unwrap().mode, 0o1777);
    }
}

#[test]
fn what_the_kernel_says_is_the_kernels() {
    let tree = placed(&[
        file("/proc/version", 0, 4),
        entry("/dev", RootKind::Link("/tmp".into())),
        file("/dev/null", 0, 4),
        file("/device", 0, 1),
    ])
    .unwrap();
    let null = walk(&tree, &NoMagic, tree.root, b"/dev/null", true).unwrap();
    assert!(matches!(
        tree.get(null.inode().unwrap()).unwrap().kind,
        Kind::Device(_)
    ));
    assert_eq!(
        read(&tree, "/proc/version"),
        Err(Errno::EISDIR),
        "made when it is read"
    );
    assert_eq!(read(&tree, "/device").unwrap(), b"0");
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    let wrong = |entries: &[RootEntry]| placed(entries).unwrap_err();
    assert_eq!(wrong(&[file("/a", 8, 3)]), "the sysroot: /a: EFBIG");
    assert_eq!(wrong(&[file("/a", u64::MAX, 2)]), "the sysroot: /a: EFBIG");
    assert_eq!(wrong(&[file("a", 0, 1)]), "the sysroot: a: EINVAL");
    assert_eq!(wrong(&[file("/a/..", 0, 1)]), "the sysroot: /a/..: EINVAL");
    assert_eq!(wrong(&[file("/etc", 0, 1)]), "the sysroot: /etc: EISDIR");
    assert_eq!(
        wrong(&[file("/a", 0, 1), file("/a/b", 0, 1)]),
        "the sysroot: /a/b: ENOTDIR"
    );
    let round = [link("/a", "b"), link("/b", "a"), file("/a/c", 0, 1)];
    assert_eq!(wrong(&round), "the sysroot: /a/c: ELOOP");
    let mut tree = Tree::new(0, 0);
    let unread = place(&mut tree, b"[{", &Bytes::default()).unwrap_err();
    assert!(
        unread.starts_with("the sysroot: its index cannot be read"),
        "{unread}"
    );
}

proptest! {
    /// Whatever the entries say, the tree is one, and no name in it is a step.
    #[test]
    fn no_entry_breaks_the_tree(paths in prop::collection::vec(("(/(a|b|\\.\\.|\\.|etc|var)){0,4}/?", "(/|\\.\\./|)(a|b|etc|\\.\\.)(/a|/b|)", 0u8..3), 0..12)) {
        let entries: Vec<_> = paths
            .iter()
            .map(|(path, target, kind)| match kind {
                0 => file(path, 0, 2),
                1 => link(path, target),
                _ => entry(path, RootKind::Directory(0o700)),
            })
            .collect();
        let mut tree = Tree::new(0, 1 << 20);
        root::build(&mut tree, &Persona::default(), &super::profile("x86_64")).unwrap();
        let _ = place(&mut tree, &serde_json::to_vec(&entries).unwrap(), &Bytes::of(vec![1, 2]));
        prop_assert!(tree.is_sound());
        for (path, ..) in &paths {
            let _ = walk(&tree, &NoMagic, tree.root, path.as_bytes(), true);
        }
    }
}
