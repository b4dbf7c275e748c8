//! What a cell's first process made: it stands still by itself where somebody else than the cell's runner wants it to.

use std::fs;
use std::io;

use super::freezer::Freezer;
use crate::cores::process::Process;

/// The guests of a cell, without the process that keeps them and speaks with the runner. They stand still while this, or whoever
/// pauses the whole cell, wants them to: neither knows of the other.
#[derive(Debug)]
pub struct Guests {
    keeper: Process,
    whole: Freezer,
    /// Whether the keeper was taken out of their group.
    apart: bool,
}

impl Guests {
    /// Those that a keeper has made by now, and will make; `None`: they are in no group that can stand still by itself.
    ///
    /// # Errors
    ///
    /// If `/proc` does not show it, or it has ended.
    pub fn of(keeper: Process) -> io::Result<Option<Self>> {
        let whole = Freezer::of(keeper.holder().pid())?;
        let whole = whole.filter(|whole| whole.within().is_there());
        // Its number could have become another's.
        match keeper.has_ended()? {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(whole.map(|whole| Self {
                keeper,
                whole,
                apart: false,
            })),
        }
    }

    /// Makes them stand still. They must have begun: their keeper is taken out of their group, and what it makes then is not in it.
    ///
    /// # Errors
    ///
    /// If the host refuses it; or they have no keeper any longer, and will end without this.
    pub fn stand_still(&mut self) -> io::Result<()> {
        if self.keeper.has_ended()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.whole.within().freeze(true)?;
        if !self.apart {
            let keeper = self.keeper.holder().pid().to_string();
            let taken = fs::write(self.whole.folder().join("cgroup.procs"), keeper);
            if taken.is_err() {
                self.go_on();
            }
            taken?;
            self.apart = true;
        }
        Ok(())
    }

    /// Lets them go on. Nothing is in their way here but that they have ended.
    pub fn go_on(&self) {
        let _ = self.whole.within().freeze(false);
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.go_on();
    }
}
