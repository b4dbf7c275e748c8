//! The host's cores: what each is for, who holds which, and who runs when.
//!
//! | module | what is there |
//! |---|---|
//! | [`locks`] | one lock for each core, in memory that the arbiter writes and everybody may read |

pub mod locks;
