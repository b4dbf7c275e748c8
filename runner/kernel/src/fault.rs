//! What the processor cannot do, as events and signals.

use hotcell_schema::arch::AbiFamily;
use hotcell_schema::event::What;
use hotcell_schema::guest::{Address, Hex};
use hotcell_schema::outcome::{Fault, FaultKind};

use crate::abi::quirks;
use crate::abi::siginfo::SignalInfo;
use crate::abi::signal::Sig;
use crate::kernel::Kernel;
use crate::machine::{Flow, Machine, Trap};
use crate::mapping::Backing;

impl Kernel {
    /// The processor cannot go on. `Continue`: what was in the way is mended, execute the instruction again.
    pub fn trap(&mut self, machine: &mut dyn Machine, trap: Trap) -> Flow {
        let pc = machine.program_counter();
        if self.enter_vsyscall(machine, pc) {
            self.syscall(machine);
            return Flow::Stop;
        }
        let mut kind = trap.kind;
        if let Some(space) = self.task_space(self.current)
            && let Some(address) = trap.address
            && space.find(address).is_some()
        {
            // Memory that was never given access is unknown to the machine, but mapped for the guest.
            kind = match kind {
                FaultKind::ReadUnmapped => FaultKind::ReadProtected,
                FaultKind::WriteUnmapped => FaultKind::WriteProtected,
                FaultKind::FetchUnmapped => FaultKind::FetchProtected,
                other => other,
            };
        }
        let mut code = [0; 16];
        let code = machine.read(pc, &mut code).is_ok().then(|| Hex(code.to_vec()));
        if let Some(code) = &code {
            let traced = self.traced(self.current).is_some();
            if kind == FaultKind::IllegalInstruction
                && quirks::is_breakpoint(self.abi.family, self.abi.big, machine, &code.0, traced)
            {
                kind = FaultKind::Breakpoint;
            }
            quirks::pass_refused(self.abi.family, kind, machine, &code.0);
        }
        let refused = code.as_ref().map(|code| code.0.clone()).unwrap_or_default();
        let fault = Fault {
            kind,
            pc: Address(pc),
            address: trap.address.map(Address),
            code,
        };
        let pid = self.pid_of(self.current);
        let task = self.event_task(pid, self.current);
        self.emit(task, What::Fault(fault));
        let backing = |address| Some(&self.task_space(self.current)?.find(address)?.1.backing);
        let beyond = trap.address.and_then(backing) == Some(&Backing::Beyond);
        let signal = match kind {
            FaultKind::Unaligned => Sig::BUS,
            // BUS_ADRERR, which is the number of SEGV_ACCERR.
            _ if beyond => Sig::BUS,
            // On x86 these are general protection faults: HLT, INT N and other instructions of the system.
            FaultKind::Exception if matches!(self.abi.family, AbiFamily::X86_64 | AbiFamily::I386) => {
                Sig::SEGV
            }
            FaultKind::IllegalInstruction | FaultKind::Exception | FaultKind::HostClock => Sig::ILL,
            FaultKind::Breakpoint => Sig::TRAP,
            FaultKind::Arithmetic => Sig::FPE,
            _ => Sig::SEGV,
        };
        let info = match self.abi.family {
            AbiFamily::X86_64 | AbiFamily::I386 => SignalInfo::of_x86_fault(kind, pc, trap.address, &refused),
            _ => SignalInfo::of_fault(kind, pc, trap.address),
        };
        self.fault_signal(self.current, signal, info);
        self.tell_later();
        Flow::Stop
    }
}
