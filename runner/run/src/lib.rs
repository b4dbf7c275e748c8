//! The executor: walks a plan, runs what is not stored yet, and writes the result.
//!
//! (The lead is writing this crate; C: finish cells and store, then review here.)
