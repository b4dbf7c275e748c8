//! Files: the tree ([`tree`]), path resolution ([`walk`]), the built-in root ([`root`]), what tells which machine this is
//! ([`identity`], [`cpu`]), `/proc` ([`proc`]) and open files ([`open`]). All in memory; inode numbers, directory order and times are deterministic.

pub(crate) mod content;
pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod identity;
pub(crate) mod lock;
pub(crate) mod magic;
pub(crate) mod open;
pub(crate) mod proc;
pub(crate) mod root;
pub(crate) mod sysroot;
pub(crate) mod tree;
pub(crate) mod walk;
pub(crate) mod watch;
