//! Delivering signals: default actions, and handlers in the guest.
//!
//! A handler runs with all registers as they were, but for the program counter, the stack pointer, the return address
//! and its arguments. What it interrupted is kept here; the frame on the guest's stack holds general registers ([`crate::abi::frame`]), and what
//! the handler changes there is taken over when it returns.

use hotcell_schema::arch::AbiFamily;

use crate::abi::errno::Errno;
use crate::abi::frame::{Frame, Told};
use crate::abi::layout::Layout;
use crate::abi::quirks;
use crate::abi::siginfo::SignalInfo;
use crate::abi::signal::{DefaultAction, Sig};
use crate::abi::traced::{Fields, Standing};
use crate::kernel::Kernel;
use crate::machine::{MachineError, Machines, SpaceId};
use crate::sys::signal::NEVER_BLOCKED;
use crate::task::{Action, Interrupted, Pending, State, Task};

const ON_STACK: u64 = 0x0800_0000;
const NO_MASK: u64 = 0x4000_0000;
const ONCE: u64 = 0x8000_0000;
/// Deepest nesting of handlers.
const MAX_NESTED: usize = 64;

/// Bytes that a handler's return may have taken off its frame, and that stand below a frame (powerpc, s390x).
const POPPED: u64 = 16;
const BELOW_FRAME: u64 = 512;

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
        let Some(frame) = Frame::of(&self.profile) else {
            return Ok(());
        };
        let context = machine.save()?;
        let abi = self.abi.clone();
        let (alternate_start, alternate_flags, alternate_size) = alternate;
        let is_alternate = |at: u64| at.wrapping_sub(alternate_start) < alternate_size;
        let stack = machine.get(registers.stack);
        let top = if action.flags & ON_STACK != 0 && alternate_flags & 2 == 0 && !is_alternate(stack) {
            alternate_start.wrapping_add(alternate_size)
        } else {
            stack
        };
        let start = abi.cut(frame.below(top));
        let info_at = start.wrapping_add(frame.info as u64);
        let ucontext = start.wrapping_add(frame.context as u64);
        let number = signal.number(abi.family);
        let task = self.tasks.get(&tid);
        let mask = task.and_then(|task| task.former_mask).unwrap_or(mask);
        let told = Told {
            mask,
            stack: alternate,
            fault: info.address(),
        };
        let fields = Fields::of(frame.registers.1, &abi, machine);
        let before = fields.read(&abi, &registers, machine, Standing::OUTSIDE);
        let mut bytes = frame.bytes(&abi, start, &info.bytes(&abi, signal), &before, &told);
        let restorer = self.return_address(space_id, &action);
        let head: &[u64] = match abi.family {
            AbiFamily::I386 => &[restorer, number, info_at, ucontext],
            AbiFamily::X86_64 => &[restorer],
            _ => &[],
        };
        let head = head
            .iter()
            .fold(Layout::new(&abi), |layout, word| layout.word(*word));
        bytes.splice(..head.bytes.len().min(bytes.len()), head.bytes);
        let fits = self
            .spaces
            .get(&space_id)
            .is_some_and(|space| space.allows(start, bytes.len() as u64, true))
            && machine.write(start, &bytes).is_ok();
        if !fits {
            let pid = self.pid_of(tid);
            self.kill_process(pid, Sig::SEGV);
            return Ok(());
        }
        if let Some(link) =
            link_register(abi.family, &self.profile.name).and_then(|name| machine.register(name))
        {
            machine.set(link, restorer);
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
        quirks::enter_handler(abi.family, machine);
        machine.set(registers.stack, start);
        machine.jump(abi.cut(action.handler));
        if let Some(task) = self.tasks.get_mut(&tid) {
            let restart = task.restart.take();
            task.interrupted.push(Interrupted {
                context,
                restart,
                frame: (ucontext, is_alternate(ucontext)),
            });
            task.former_mask = None;
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

    /// Back from a handler: to what it interrupted, with what it changed in its `ucontext_t`.
    pub(crate) fn do_signal_return(
        &mut self,
        machines: &mut dyn Machines,
        tid: u32,
        pending: Pending,
    ) -> Result<(), MachineError> {
        self.load_registers(tid, machines)?;
        let (Some(task), Some(frame), Some(registers)) = (
            self.tasks.get_mut(&tid),
            Frame::of(&self.profile),
            &self.registers,
        ) else {
            return Ok(());
        };
        let mut lost = false;
        if let Some(machine) = machines.get(task.space) {
            // Handlers that were left by a jump (siglongjmp) came after the one whose frame the stack stands at.
            let stack = self.abi.cut(machine.get(registers.stack));
            let near = stack.saturating_sub(POPPED)..=stack.saturating_add(BELOW_FRAME);
            let one = task
                .interrupted
                .iter()
                .rposition(|one| near.contains(&one.frame.0));
            task.interrupted.truncate(one.map_or(usize::MAX, |one| one + 1));
        }
        if let Some(mut interrupted) = task.interrupted.pop()
            && let Some(machine) = machines.get(task.space)
        {
            machine.restore(&interrupted.context)?;
            let mut bytes = vec![0; frame.looked_at(&self.abi)];
            lost = machine.read(interrupted.frame.0, &mut bytes).is_err();
            if !lost {
                let fields = Fields::of(frame.registers.1, &self.abi, machine);
                let begin = machine.program_counter();
                let changed = bytes.get(frame.registers.0..).unwrap_or_default();
                fields.write(&self.abi, registers, machine, Standing::OUTSIDE, changed);
                if machine.program_counter() != begin {
                    // It goes on elsewhere: the interrupted call is not made again.
                    interrupted.restart = None;
                }
                task.mask = frame.mask(&self.abi, &bytes).unwrap_or_default() & !NEVER_BLOCKED;
            }
            task.state = State::Runnable;
            task.wait_again(interrupted.restart);
        }
        self.tell_call(tid, pending, None::<Result<u64, Errno>>);
        if lost {
            // The frame is not there any more.
            let pid = self.pid_of(tid);
            self.kill_process(pid, Sig::SEGV);
            self.tell_later();
        }
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
