//! Templates: minijinja with strict undefined, and the one place that decides how foreign text is shown.
//!
//! In: the name of a shipped template and a serialisable context. Out: text. An undefined name is an error, never an empty
//! string. In HTML templates every value is first made [`visible`] (control, direction and invisible characters become
//! readable marks) and then escaped; only the types below may say that a text is HTML already.
//!
//! | where | what |
//! |---|---|
//! | [`html`] | renders `templates/*.html`; inlines CSS and scripts under a strict content security policy |
//! | [`script_json`] | data for a script block, which cannot end the block |
//! | [`visible`], [`visible_block`] | foreign text made harmless and honest, also for terminals |

mod html;
mod visible;

pub use html::{RenderError, html, script_json};
pub use visible::{visible, visible_block};
