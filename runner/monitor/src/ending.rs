//! Which calls end the process that makes them: those that a manifest denies with `kill`.

use hotcell_schema::deny::{Denial, Deny, When};
use syscalls::Sysno;

/// `AF_UNIX` (include/linux/socket.h).
const AF_UNIX: u32 = 1;

/// A call that ends who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Which.
    pub call: Sysno,
    /// The argument that decides.
    pub argument: u32,
    /// It does if one of these bits is set in it; none: always.
    pub bits: u64,
    /// Which of the cell's rules says so: its place among all that can be denied.
    pub rule: u32,
    /// Only if it points at an address of this family, and the call has failed with `EACCES`; 0: whatever it is.
    pub family: u32,
}

/// What a manifest says, call by call.
pub fn ending(deny: &Deny) -> Vec<Ending> {
    let mut calls = Vec::new();
    for (denied, _) in deny.each().filter(|(_, denial)| *denial == Denial::Kill) {
        for call in denied.calls() {
            let (argument, bits, family) = match call.when {
                When::Always => (0, 0, 0),
                When::Bits(argument, bits) => (argument, bits, 0),
                When::Unix(argument) => (argument, 0, AF_UNIX),
                // Where memory decides, the call is absent altogether, or hooks of the control group see it.
                When::BitsAt(..) | When::Address(_) | When::Message(_) => continue,
            };
            // The host's architecture may not have it.
            if let Ok(call) = call.name.parse() {
                calls.push(Ending {
                    call,
                    argument: argument.into(),
                    bits,
                    rule: denied as u32,
                    family,
                });
            }
        }
    }
    calls
}
