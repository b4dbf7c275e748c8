//! The file tree: paths cannot escape, links are bounded, limits hold.

use proptest::prelude::*;

use super::NoMagic;
use crate::abi::errno::Errno;
use crate::fs::tree::{Data, Ino, Kind, PROC_DEVICE, SYS_DEVICE, StoreError, Tree};
use crate::fs::walk::{absolute, walk};

fn tree() -> Tree {
    let mut tree = Tree::new(0, 1 << 20);
    let root = tree.root;
    let a = tree.make(root, b"a", Tree::directory(), 0o755, (0, 0)).unwrap();
    let b = tree.make(a, b"b", Tree::directory(), 0o755, (0, 0)).unwrap();
    tree.make(b, b"f", Kind::File(Data::Own(Vec::new())), 0o644, (0, 0))
        .unwrap();
    tree.make(b, b"up", Kind::Symlink(b"../../..".to_vec()), 0o777, (0, 0))
        .unwrap();
    tree.make(b, b"loop", Kind::Symlink(b"loop".to_vec()), 0o777, (0, 0))
        .unwrap();
    tree.make(root, b"l", Kind::Symlink(b"/a/b".to_vec()), 0o777, (0, 0))
        .unwrap();
    tree
}

fn find(tree: &Tree, path: &str) -> Result<Ino, Errno> {
    walk(tree, &NoMagic, tree.root, path.as_bytes(), true)?.inode()
}

#[test]
fn paths_lead_where_linux_leads() {
    let tree = tree();
    let file = find(&tree, "/a/b/f").unwrap();
    assert_eq!(find(&tree, "/l/f"), Ok(file));
    assert_eq!(find(&tree, "//a/./b/../b//f"), Ok(file));
    assert_eq!(find(&tree, "/../../a/b/f"), Ok(file));
    assert_eq!(find(&tree, "/a/b/up"), Ok(tree.root));
    assert_eq!(find(&tree, "/a/b/up/a/b/f"), Ok(file));
    assert_eq!(find(&tree, "/a/b/f/"), Err(Errno::ENOTDIR));
    assert_eq!(find(&tree, "/a/b/f/x"), Err(Errno::ENOTDIR));
    assert_eq!(find(&tree, "/a/b/loop"), Err(Errno::ELOOP));
    assert_eq!(find(&tree, "/a/c/d"), Err(Errno::ENOENT));
    assert_eq!(find(&tree, ""), Err(Errno::ENOENT));
    assert_eq!(find(&tree, &"x".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(find(&tree, &"/a".repeat(3000)), Err(Errno::ENAMETOOLONG));
}

/// Permissions are asked of whoever comes by a path; what may not be filled is what the kernel itself makes, whatever its mode.
#[test]
fn folders_of_the_kernel_are_not_filled() {
    let mut tree = tree();
    let root = tree.root;
    let closed = tree
        .make(root, b"closed", Tree::directory(), 0o550, (0, 0))
        .unwrap();
    let file = || Kind::File(Data::Own(Vec::new()));
    tree.make(closed, b"f", file(), 0o644, (0, 0)).unwrap();
    tree.unlink(closed, b"f").unwrap();
    for device in [PROC_DEVICE, SYS_DEVICE] {
        tree.get_mut(closed).unwrap().device = device;
        tree.get_mut(closed).unwrap().mode = 0o755;
        assert_eq!(tree.make(closed, b"f", file(), 0o644, (0, 0)), Err(Errno::ENOENT));
    }
}

#[test]
fn directories_cannot_be_moved_below_themselves() {
    let mut tree = tree();
    let (root, a) = (tree.root, find(&tree, "/a").unwrap());
    let b = find(&tree, "/a/b").unwrap();
    assert_eq!(tree.rename((root, b"a"), (b, b"x"), true), Err(Errno::EINVAL));
    assert_eq!(tree.rename((root, b"a"), (a, b"x"), true), Err(Errno::EINVAL));
    assert_eq!(tree.rmdir(a, b"b"), Err(Errno::ENOTEMPTY));
}

#[test]
fn what_is_stored_is_bounded_and_given_back() {
    let mut tree = tree();
    let (b, file) = (find(&tree, "/a/b").unwrap(), find(&tree, "/a/b/f").unwrap());
    assert_eq!(tree.write(file, 0, &[1; 1000]), Ok(()));
    assert_eq!(tree.room, (1 << 20) - 1000);
    assert_eq!(tree.write(file, 1 << 40, &[1]), Err(StoreError::Limit));
    assert_eq!(
        tree.write(file, u64::MAX, &[1]),
        Err(StoreError::Errno(Errno::EFBIG))
    );
    tree.hold(file);
    tree.unlink(b, b"f").unwrap();
    assert_eq!(tree.bytes(file).map(<[u8]>::len), Some(1000));
    tree.release(file);
    assert_eq!(tree.room, 1 << 20);
    assert_eq!(tree.bytes(file), None);
}

#[test]
fn shared_content_is_copied_when_written() {
    let mut tree = tree();
    let root = tree.root;
    let given: crate::Bytes = b"given".as_slice().into();
    let file = tree
        .add(root, b"g", Kind::File(Data::Shared(given.clone())), 0o644, (0, 0))
        .unwrap();
    tree.write(file, 1, b"XY").unwrap();
    assert_eq!(tree.bytes(file), Some(b"gXYen".as_slice()));
    assert_eq!(&*given, b"given");
    tree.resize(file, 2).unwrap();
    assert_eq!(tree.bytes(file), Some(b"gX".as_slice()));
}

proptest! {
    #[test]
    fn any_path_ends(path in "[abfl./up]{0,40}") {
        let tree = tree();
        let _ = find(&tree, &path);
    }

    #[test]
    fn absolute_paths_are_clean(cwd in "(/[a-z.]{1,3}){0,4}", path in "[a-c./]{0,30}") {
        let whole = absolute(cwd.as_bytes(), path.as_bytes());
        prop_assert_eq!(whole[0], b'/');
        for part in whole[1..].split(|byte| *byte == b'/') {
            prop_assert!(!matches!(part, b"." | b".."));
            prop_assert!(!part.is_empty() || whole.len() == 1);
        }
    }
}

#[test]
fn folders_that_the_kernel_removes_are_counted_no_more() {
    let mut tree = tree();
    let root = tree.root;
    let links = |tree: &Tree, ino: Ino| tree.get(ino).map(|inode| inode.links);
    let a = find(&tree, "/a").unwrap();
    let file = find(&tree, "/a/b/f").unwrap();
    tree.link(file, root, b"also").unwrap();
    // Its own two names, and `..` of the one folder in it.
    assert_eq!((links(&tree, root), links(&tree, a)), (Some(3), Some(3)));
    tree.remove_all(a, b"b");
    assert_eq!((links(&tree, root), links(&tree, a)), (Some(3), Some(2)));
    assert_eq!(links(&tree, file), Some(1));
    tree.remove_all(root, b"a");
    assert_eq!(links(&tree, root), Some(2));
    assert_eq!(find(&tree, "/also"), Ok(file));
}
