//! The emulated Linux.

pub mod machine;
