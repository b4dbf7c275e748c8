//! Delivering signals: default actions, and handlers in the guest.
//!
//! A handler runs with all registers as they were, but for the program counter, the stack pointer, the return address
//! and its arguments. What it interrupted is kept here, not on the guest's stack: the frame there holds only `siginfo`
//! and an empty `ucontext`.

use hotcell_schema::arch::AbiFamily;

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::abi::siginfo::{self, SignalInfo};
use crate::abi::signal::{DefaultAction, Sig};
use crate::kernel::Kernel;
use crate::machine::{MachineError, Machines, SpaceId};
use crate::task::{Action, Interrupted, Pending, State, Task};

const ON_STACK: u64 = 0x0800_0000;
const NO_MASK: u64 = 0x4000_0000;
const ONCE: u64 = 0x8000_0000;
/// Deepest nesting of handlers.
const MAX_NESTED: usize = 64;

impl Kernel {
    /// Acts on a signal that has arrived at a task about to run. Whether anything changed.
    pub(crate) fn deliver(&mut self, tid: u32, machines: &mut dyn Machines) -> Result<bool, MachineError> {
        if self.held_for_signal(tid) {
            return Ok(true);
        }
        let Some((signal, info)) = self.signal_for(tid) else {
            return Ok(false);
        };
        let pid = self.pid_of(tid);
        let Some(process) = self.processes.get_mut(&pid) else {
            return Ok(false);
        };
        let action = process.actions.get(&signal).copied().unwrap_or_default();
        match (action.handler, signal.default_action()) {
            (0, DefaultAction::Terminate) => self.kill_process(pid, signal),
            (0, DefaultAction::Stop) => self.stop_process(pid, signal),
            (0 | 1, _) => {}
            _ => {
                if action.flags & ONCE != 0 {
                    process.actions.remove(&signal);
                }
                match self.handlers_of(tid, machines)? {
                    MAX_NESTED.. => self.kill_process(pid, Sig::SEGV),
                    _ => self.enter_handler(tid, machines, (signal, info), action)?,
                }
            }
        }
        // No handler took it over: the interrupted call goes on.
        if let Some(task) = self.tasks.get_mut(&tid) {
            let restart = task.restart.take();
            if restart.is_none() {
                task.mask_again();
            }
            task.wait_again(restart);
        }
        self.tell_later();
        Ok(true)
    }

    fn enter_handler(
        &mut self,
        tid: u32,
        machines: &mut dyn Machines,
        (signal, info): (Sig, SignalInfo),
        action: Action,
    ) -> Result<(), MachineError> {
        let Some(registers) = self.registers.clone() else {
            return Ok(());
        };
        let Some((space_id, mask, alternate)) = self
            .tasks
            .get(&tid)
            .map(|task| (task.space, task.mask, task.alternate_stack))
        else {
            return Ok(());
        };
        let Some(machine) = machines.get(space_id) else {
            return Ok(());
        };
        let context = machine.save()?;
        let abi = self.abi.clone();
        let stack = machine.get(registers.stack);
        let (alternate_start, alternate_flags, alternate_size) = alternate;
        let inside = stack.wrapping_sub(alternate_start) < alternate_size;
        let top = if action.flags & ON_STACK != 0 && alternate_flags & 2 == 0 && !inside {
            alternate_start.wrapping_add(alternate_size)
        } else {
            stack
        };
        // Room for the red zone and the largest caller's area, then siginfo (128 bytes) and an empty ucontext.
        const BELOW: u64 = 512;
        const UCONTEXT: u64 = 1024;
        let info_at = top.wrapping_sub(BELOW + UCONTEXT + 128) & !15;
        let frame = info_at.wrapping_sub(256) & !15;
        let number = signal.number(abi.family);
        let mut bytes = info.bytes(&abi, signal);
        bytes.resize(siginfo::SIZE + UCONTEXT as usize, 0);
        let ucontext = info_at.wrapping_add(siginfo::SIZE as u64);
        let restorer = self.return_address(space_id, &action);
        let mut stack = frame;
        let writable = |kernel: &Self, at: u64, length: usize| {
            kernel
                .spaces
                .get(&space_id)
                .is_some_and(|space| space.allows(at, length as u64, true))
        };
        let mut fits =
            writable(self, abi.cut(info_at), bytes.len()) && machine.write(abi.cut(info_at), &bytes).is_ok();
        match abi.family {
            AbiFamily::I386 => {
                stack = (frame & !15).wrapping_sub(20);
                let words = [restorer, number, info_at, ucontext];
                let mut layout = Layout::new(&abi);
                for word in words {
                    layout = layout.word(word);
                }
                fits &= writable(self, abi.cut(stack), layout.bytes.len())
                    && machine.write(abi.cut(stack), &layout.bytes).is_ok();
            }
            AbiFamily::X86_64 => {
                stack = frame.wrapping_sub(8);
                fits &= writable(self, stack, 8)
                    && machine
                        .write(stack, &Layout::new(&abi).u64(restorer).bytes)
                        .is_ok();
            }
            _ => {
                if let Some(link) =
                    link_register(abi.family, &self.profile.name).and_then(|name| machine.register(name))
                {
                    machine.set(link, restorer);
                }
            }
        }
        if !fits {
            let pid = self.pid_of(tid);
            self.kill_process(pid, Sig::SEGV);
            return Ok(());
        }
        if abi.family != AbiFamily::I386 {
            for (index, value) in [number, info_at, ucontext].into_iter().enumerate() {
                if let Some(register) = registers.argument(index) {
                    machine.set(register, abi.cut(value));
                }
            }
        }
        if let Some(name) = call_register(abi.family)
            && let Some(register) = machine.register(name)
        {
            machine.set(register, action.handler);
        }
        machine.set(registers.stack, abi.cut(stack));
        machine.jump(abi.cut(action.handler));
        if let Some(task) = self.tasks.get_mut(&tid) {
            let restart = task.restart.take();
            task.interrupted.push(Interrupted {
                context,
                mask: task.former_mask.take().unwrap_or(mask),
                restart,
                frame: (frame, frame.wrapping_sub(alternate_start) < alternate_size),
            });
            task.mask |= action.mask;
            if action.flags & NO_MASK == 0 {
                task.mask |= 1 << (signal.0 - 1);
            }
        }
        Ok(())
    }

    /// Makes the machine hold a task's registers; how many handlers it is in. Those whose frames lie below its stack pointer were left
    /// by a jump (siglongjmp).
    fn handlers_of(&mut self, tid: u32, machines: &mut dyn Machines) -> Result<usize, MachineError> {
        self.load_registers(tid, machines)?;
        let (Some(task), Some(registers)) = (self.tasks.get_mut(&tid), &self.registers) else {
            return Ok(0);
        };
        let Some(machine) = machines.get(task.space) else {
            return Ok(0);
        };
        let stack = self.abi.cut(machine.get(registers.stack));
        let (start, _, size) = task.alternate_stack;
        let is_alternate = stack.wrapping_sub(start) < size;
        task.interrupted.retain(|one| match one.frame {
            (at, alternate) if alternate == is_alternate => at >= stack,
            (_, alternate) => !alternate,
        });
        Ok(task.interrupted.len())
    }

    /// Where a handler returns to: the libc's restorer, or the kernel's shared object.
    fn return_address(&self, space: SpaceId, action: &Action) -> u64 {
        const RESTORER: u64 = 0x0400_0000;
        if action.restorer != 0 && (action.flags & RESTORER != 0 || self.abi.family == AbiFamily::X86_64) {
            return action.restorer;
        }
        self.spaces.get(&space).map_or(0, |space| space.signal_return)
    }

    /// Back from a handler.
    pub(crate) fn do_signal_return(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: Pending,
    ) -> Result<(), MachineError> {
        self.load_registers(tid, machines)?;
        let Some(task) = self.tasks.get_mut(&tid) else {
            return Ok(());
        };
        if let Some(interrupted) = task.interrupted.pop() {
            task.mask = interrupted.mask;
            task.state = State::Runnable;
            task.wait_again(interrupted.restart);
            if let Some(machine) = machines.get(task.space) {
                machine.restore(&interrupted.context)?;
            }
        }
        self.tell_call(tid, pending, None::<Result<u64, Errno>>);
        Ok(())
    }
}

impl Task {
    /// Makes an interrupted call be tried again.
    fn wait_again(&mut self, restart: Option<Pending>) {
        if let Some(pending) = restart {
            self.state = State::Waiting {
                tried_at: u64::MAX,
                deadline: pending.deadline,
            };
            self.pending = Some(pending);
        }
    }
}

/// The register with the return address.
fn link_register(family: AbiFamily, arch: &str) -> Option<&'static str> {
    match family {
        AbiFamily::ArmEabi => Some("lr"),
        AbiFamily::Generic64 if arch == "riscv64" => Some("ra"),
        AbiFamily::Generic64 => Some("x30"),
        AbiFamily::MipsO32 | AbiFamily::MipsN64 => Some("ra"),
        AbiFamily::Ppc32 | AbiFamily::Ppc64 => Some("lr"),
        AbiFamily::S390x => Some("r14"),
        AbiFamily::X86_64 | AbiFamily::I386 => None,
    }
}

/// The register that position-independent code expects a function's address in.
fn call_register(family: AbiFamily) -> Option<&'static str> {
    match family {
        AbiFamily::MipsO32 | AbiFamily::MipsN64 => Some("t9"),
        AbiFamily::Ppc64 => Some("r12"),
        _ => None,
    }
}
