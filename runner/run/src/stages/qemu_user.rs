//! `qemu-user/linux`: a Linux program under QEMU's user mode, in `hotcell-qemu`.

use hotcell_cells::intake::Bounds;
use hotcell_plan::Instance;
use hotcell_schema::stage::QemuUserWith;

use super::cell::{self, Allowed};
use super::{linux, settings};
use crate::work::{Done, Inputs, Shared};

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: QemuUserWith = settings(instance)?;
    let prepared = linux::prepare(shared, instance, inputs, with.into())?;
    let guest = shared.limits(instance).guest;
    let allowed = Allowed {
        ports: &["stdout", "stderr", "files"],
        header: None,
        bounds: Bounds {
            output_bytes: guest.file_bytes.saturating_mul(2).saturating_add(1 << 20),
            outputs: 250_000,
            ..Bounds::default()
        },
    };
    let finished = cell::run(shared, instance, &prepared.job, &prepared.blobs, &allowed)?;
    linux::outputs(shared, finished, &["stdout", "stderr"])
}
