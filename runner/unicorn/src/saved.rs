//! Saved registers: of this process, and as bytes for another.

use std::rc::Rc;

use hotcell_kernel::machine::{MachineError, Snapshot};
use serde::{Deserialize, Serialize};
use unicorn_engine::{Arch, Unicorn};

use crate::{
    image_unsafe::Image,
    machine::{Guest, failed},
    quirks::{self, Quirk},
    registers,
};

/// Saved registers.
pub(crate) enum Saved {
    /// All of the processor's state; on 32-bit x86 with the thread's own descriptor; and the state that the instance had
    /// at first.
    Image(Image, Option<[u8; 8]>, Rc<[u8]>),
    /// By number, where Unicorn's copy holds pointers of the instance it was made from.
    Registers(Vec<(i32, u64)>),
    /// From another process.
    Foreign(Foreign),
}

/// Saved registers as they are written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Foreign {
    /// What differs from the state of an instance that was just made: offset and bytes. And the thread's descriptor.
    Image(Vec<(u32, Vec<u8>)>, Option<[u8; 8]>),
    /// By number.
    Registers(Vec<(i32, u64)>),
}

impl Snapshot for Saved {
    fn bytes(&self) -> Result<Vec<u8>, MachineError> {
        postcard::to_stdvec(&self.foreign()).map_err(|error| MachineError(error.to_string()))
    }
}

impl Saved {
    /// What another process can go on with.
    pub(crate) fn foreign(&self) -> Foreign {
        match self {
            Self::Image(image, descriptor, first) => {
                Foreign::Image(difference(first, image.bytes()), *descriptor)
            }
            Self::Registers(values) => Foreign::Registers(values.clone()),
            Self::Foreign(foreign) => foreign.clone(),
        }
    }

    /// The same from bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MachineError> {
        let foreign = postcard::from_bytes(bytes).map_err(|error| MachineError(error.to_string()))?;
        Ok(Self::Foreign(foreign))
    }

    /// The registers of an instance, to come back to within this run. `first`: its state at first.
    pub(crate) fn of(uc: &Unicorn<'_, Guest>, first: &Rc<[u8]>) -> Result<Self, MachineError> {
        let shape = &uc.get_data().shape;
        if shape.arch != Arch::PPC {
            return Self::whole(uc, first);
        }
        let mut names = registers::general(shape.arch, shape.bits);
        names.extend((0..32).map(|n| format!("f{n}")));
        names.push("fpscr".to_owned());
        let mut values = Vec::new();
        for number in names
            .iter()
            .filter_map(|name| registers::number(shape.arch, name))
        {
            values.push((number, uc.reg_read(number).map_err(failed("saving a register"))?));
        }
        Ok(Self::Registers(values))
    }

    /// All of an instance's state, whatever the architecture.
    pub(crate) fn whole(uc: &Unicorn<'_, Guest>, first: &Rc<[u8]>) -> Result<Self, MachineError> {
        let gdt = uc.get_data().shape.quirks.contains(&Quirk::X86Gdt);
        let descriptor = gdt.then(|| quirks::thread_descriptor(uc)).flatten();
        Ok(Self::Image(Image::of(uc)?, descriptor, Rc::clone(first)))
    }

    /// Puts them into an instance whose state at first was `first`.
    pub(crate) fn apply(&self, uc: &mut Unicorn<'_, Guest>, first: &[u8]) -> Result<(), MachineError> {
        let (values, descriptor) = match self {
            Self::Image(image, descriptor, _) => {
                image.restore(uc)?;
                (None, descriptor)
            }
            Self::Foreign(Foreign::Image(parts, descriptor)) => {
                let mut image = Image::of(uc)?;
                put(image.bytes_mut(), first, parts)?;
                image.restore(uc)?;
                (None, descriptor)
            }
            Self::Registers(values) | Self::Foreign(Foreign::Registers(values)) => (Some(values), &None),
        };
        for (number, value) in values.into_iter().flatten() {
            uc.reg_write(*number, *value)
                .map_err(failed("restoring a register"))?;
        }
        if let Some(descriptor) = descriptor {
            quirks::set_thread_descriptor(uc, *descriptor);
        }
        Ok(())
    }
}

/// Only bytes that differ: one that does not may be part of a pointer.
fn difference(first: &[u8], now: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut parts: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut end = 0;
    for (at, (before, after)) in first.iter().zip(now).enumerate() {
        if before == after {
            continue;
        }
        match parts.last_mut() {
            Some((_, part)) if at == end => part.push(*after),
            _ => parts.push((u32::try_from(at).unwrap_or(u32::MAX), vec![*after])),
        }
        end = at + 1;
    }
    parts
}

fn put(into: &mut [u8], first: &[u8], parts: &[(u32, Vec<u8>)]) -> Result<(), MachineError> {
    let other = || MachineError("registers of another kind of processor".to_owned());
    if into.len() != first.len() {
        return Err(other());
    }
    into.copy_from_slice(first);
    for (at, part) in parts {
        let at = *at as usize;
        let end = at.checked_add(part.len()).ok_or_else(other)?;
        into.get_mut(at..end).ok_or_else(other)?.copy_from_slice(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_and_put_back() {
        let first = [0u8; 64];
        let mut now = first;
        now[3] = 1;
        now[4] = 2;
        now[63] = 3;
        let parts = difference(&first, &now);
        assert_eq!(parts, [(3, vec![1, 2]), (63, vec![3])]);
        let mut other = [7u8; 64];
        put(&mut other, &first, &parts).expect("it fits");
        assert_eq!(other, now);
        assert!(put(&mut other, &first, &[(60, vec![0; 5])]).is_err());
        assert!(put(&mut other[..63], &first, &parts).is_err());
    }
}
