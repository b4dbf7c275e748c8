//! What sharing cores costs: each side of a ratio is measured by one program in one run.
//!
//! In: a folder with release executables, and in its `examples`: `turns` and `locks` of the crate of cells, `contexts` of the
//! engine. Out: what they print.

use std::{path::Path, process::Command};

use crate::common::{Failure, must};

pub(super) fn run(release: &Path) -> Result<(), Failure> {
    let examples = release.join("examples");
    println!("cells that compute on one core, wall time");
    must(&mut Command::new(examples.join("turns")))?;
    println!("\na core lock that nobody else wants");
    must(&mut Command::new(examples.join("locks")))?;
    println!("\na cell of the emulator that has touched 16 MiB, wall time, medians");
    must(Command::new(examples.join("contexts")).arg(release.join("hotcell-unicorn")))?;
    println!();
    Ok(())
}
