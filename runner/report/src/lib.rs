//! From what instances gave to what people read: `report.json`, the terminal's summary, the HTML pages.
//!
//! ```text
//! InstanceReport[] + Outputs ──assemble──> Report ──to_json──────────> result/report.json
//!                                            ├──Summary─────text────> the terminal
//!                                 RunFacts ──┴──html::pages─────────> report.html, samples/*.html
//! ```
//!
//! In: [`InstanceReport`](hotcell_schema::report::InstanceReport)s as the executor knows them, and an [`Outputs`] through
//! which the bytes of their ports are read. Out: the deterministic [`Report`](hotcell_schema::report::Report), and
//! presentations of it. Nothing here prints or reads the environment. Whatever a sample could have chosen (paths, arguments,
//! output) is bounded, escaped and made visible before it reaches a person.
//!
//! | module | what it does |
//! |---|---|
//! | [`behaviour`] | events to behaviours that can be compared across architectures and engines |
//! | [`assemble`] | instances and their outputs to a `Report` |
//! | [`outputs`] | where the bytes of ports come from |
//! | [`words`] | one event, one fault, one size in a line of text |
//! | [`summary`] | what is told of a report at the end of a run |
//! | [`text`] | the same as text for a terminal |
//! | [`html`] | the pages |

pub mod assemble;
pub mod behaviour;
pub mod compare;
#[cfg(feature = "fixture")]
pub mod fixture;
pub mod html;
pub mod outputs;
pub mod summary;
pub mod text;
pub mod words;

pub use assemble::{Assembly, assemble, to_json, write_json};
pub use behaviour::{Behaviours, behaviour};
pub use hotcell_render::{visible, visible_block};
pub use outputs::{Folder, Outputs};
pub use summary::Summary;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The bytes of a port could not be read.
    #[error("cannot read output `{port}` of `{instance}`")]
    Read {
        /// The instance's name.
        instance: String,
        /// The port.
        port: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A page could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Path of the page, relative to the run's folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A report could not be written as JSON.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
    /// A template failed: a defect of hotcell.
    #[error(transparent)]
    Render(#[from] hotcell_render::RenderError),
}
