//! placeholder
use crate::common::Failure;
use std::path::Path;
pub(crate) fn run(_project: &Path, _args: &[String]) -> Result<(), Failure> {
    Err("not yet".into())
}
