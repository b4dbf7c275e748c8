//! What is looked at while blocks of code run: how many there are, whether the runner wants something, what a block calls.

use std::rc::Rc;

use hotcell_kernel::machine::MachineError;
use unicorn_engine::Unicorn;

use crate::{
    machine::{Guest, Stop, UnicornMachine, Watch, failed},
    nudge_unsafe,
};

/// Hears of a block's address.
pub(crate) type Begins = dyn Fn(&mut Unicorn<'_, Guest>, u64);

impl<'a> UnicornMachine<'a> {
    /// Counts blocks from now on; translated code without the count is dropped.
    pub(crate) fn count_blocks(&mut self) -> Result<(), MachineError> {
        self.uc.get_data_mut().counting = true;
        self.hook_blocks()
    }

    /// Looks at every block from now on.
    pub(crate) fn hook_blocks(&mut self) -> Result<(), MachineError> {
        if self.uc.get_data().hooks.0.is_some() {
            return Ok(());
        }
        let hook = self
            .uc
            .add_block_hook(1, 0, block)
            .map_err(failed("hooking blocks"))?;
        self.uc.ctl_flush_tb().map_err(failed("dropping translations"))?;
        self.uc.get_data_mut().hooks.0 = Some(hook);
        Ok(())
    }

    /// Looks at every instruction from now on.
    pub(crate) fn hook_instructions(
        &mut self,
        look: impl FnMut(&mut Unicorn<'_, Guest>, u64, u32) + 'a,
    ) -> Result<(), MachineError> {
        if self.uc.get_data().hooks.1.is_some() {
            return Ok(());
        }
        let hook = self
            .uc
            .add_code_hook(1, 0, look)
            .map_err(failed("hooking instructions"))?;
        self.uc.ctl_flush_tb().map_err(failed("dropping translations"))?;
        self.uc.get_data_mut().hooks.1 = Some(hook);
        Ok(())
    }

    /// Looks no more at what need not be looked at.
    pub(crate) fn unhook(&mut self) -> Result<(), MachineError> {
        let guest = self.uc.get_data_mut();
        let needed = guest.counting || guest.begins.is_some();
        let blocks = guest.hooks.0.take_if(|_| !needed);
        let gone = [blocks, guest.hooks.1.take()];
        if gone.iter().all(Option::is_none) {
            return Ok(());
        }
        for hook in gone.into_iter().flatten() {
            self.uc.remove_hook(hook).map_err(failed("removing a hook"))?;
        }
        self.uc.ctl_flush_tb().map_err(failed("dropping translations"))
    }
}

/// In the hook of a block that is about to run.
fn block(uc: &mut Unicorn<'_, Guest>, address: u64, size: u32) {
    let guest = uc.get_data_mut();
    if guest.stop.is_some() {
        return;
    }
    let counts = Rc::clone(&guest.counts);
    let wanted = match counts.watch.get() {
        Watch::Block | Watch::Slice(0) => true,
        Watch::Slice(left) => {
            counts.watch.set(Watch::Slice(left - 1));
            false
        }
        Watch::Free => nudge_unsafe::asked(),
        // The runner is heard after the instruction.
        Watch::Instruction(_) => false,
    };
    let spent = guest.counting && counts.budget.get() == 0;
    if wanted || spent {
        // Before it is counted: it will come here again.
        guest.resume = Some(address);
        guest.stop = Some(if spent { Stop::Budget } else { Stop::Break });
        let _ = uc.emu_stop();
        return;
    }
    if guest.counting {
        counts.budget.set(counts.budget.get().saturating_sub(1));
        counts.blocks.set(counts.blocks.get().saturating_add(1));
        let mut lengths = std::mem::take(&mut guest.lengths);
        let length = u64::from(lengths.of(uc, address, size));
        uc.get_data_mut().lengths = lengths;
        counts
            .instructions
            .set(counts.instructions.get().saturating_add(length));
    }
    if let Some(begins) = uc.get_data().begins.clone() {
        begins(uc, address);
    }
}
