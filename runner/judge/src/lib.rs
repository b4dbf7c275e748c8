//! Results against what was expected of them.
//!
//! In: a [`Report`](hotcell_schema::report::Report), the bytes of its outputs ([`contents`]), golden files, expectations of the
//! manifest. Out: [`Verdict`](hotcell_schema::verdict::Verdict)s, with the [`Change`](hotcell_schema::diff::Change)s that
//! explain them, for the terminal, JSON, HTML and JUnit.
//!
//! | module | what it does |
//! |---|---|
//! | [`facts`] | the part of an exact instance's report that is compared |
//! | [`observed`] | facts of an observed instance: learned from several runs, judged, widened |
//! | [`golden`], [`review`] | golden files: compared, accepted, reviewed |
//! | [`diff`] | two runs side by side |
//! | [`structure`], [`lines`], [`content`] | what differs in a JSON document, a text, an output |
//! | [`expect`] | the manifest's `expect` |
//! | [`text`], [`html`], [`junit`] | changes for a terminal, a page, a CI service |

pub mod content;
pub mod contents;
pub mod diff;
pub mod expect;
pub mod facts;
pub mod golden;
pub mod html;
pub mod junit;
pub mod lines;
mod normal;
pub mod observed;
pub mod review;
pub mod structure;
pub mod text;
