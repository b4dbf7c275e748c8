//! All of a processor's state as bytes.
//!
//! Unicorn copies the processor's structure as it is, with some pointers into the instance that it was made from. So two
//! copies of one instance are compared, and only what differs is kept: pointers never do. In another instance, or another
//! process, the difference is put upon that instance's own first copy.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use hotcell_kernel::machine::MachineError;
use unicorn_engine::{
    Arch, Unicorn,
    hook::{sys, uc_context},
};

use crate::machine::{Guest, failed};

/// Bytes of `struct uc_context` before the copy (`include/uc_priv.h` of the pinned release): size, mode, architecture,
/// level of snapshots, a flag, two pointers.
const HEAD: usize = 40;

/// Bytes of `retaddr`, the last field that is copied of x86's structure (`qemu/target/i386/cpu.h`).
const RETURN_ADDRESS: usize = 8;

/// `exception` of arm's structure (`qemu/target/arm/cpu.h`, of both builds): what the exception that is being raised says of itself. The next
/// one writes it before it is read, and which was the last depends on when the host stopped the run.
const RAISED: std::ops::Range<usize> = 3024..3048;

/// Where `hflags` of x86's structure stands, of both builds (`qemu/target/i386/cpu.h`): sixteen registers, the program counter, the flags, what
/// arithmetic flags are made of, and two fields of four bytes come before it. Its two lowest bits are the privilege level.
const HIDDEN_FLAGS: usize = 176;

/// One copy.
pub(crate) struct Image {
    context: NonNull<uc_context>,
    length: usize,
}

impl Image {
    /// The state of an instance now.
    pub(crate) fn of(uc: &Unicorn<'_, Guest>) -> Result<Self, MachineError> {
        let handle = uc.get_handle();
        let mut context = std::ptr::null_mut();
        // SAFETY: the handle is of a live instance; the call fills the pointer with memory of its own, or fails.
        let (size, allocated) = unsafe {
            (
                sys::uc_context_size(handle),
                sys::uc_context_alloc(handle, &raw mut context),
            )
        };
        Result::from(allocated).map_err(failed("making room for registers"))?;
        let context =
            NonNull::new(context).ok_or_else(|| MachineError("no memory for registers".to_owned()))?;
        let image = Self {
            context,
            length: size.saturating_sub(HEAD),
        };
        // SAFETY: the allocation is `size` bytes long, of which `length` come after the head; what the library leaves out
        // is zero then.
        unsafe { std::ptr::write_bytes(image.data(), 0, image.length) };
        // SAFETY: the context was made for this instance just now.
        let saved = unsafe { sys::uc_context_save(handle, context.as_ptr()) };
        Result::from(saved).map_err(failed("saving registers"))?;
        let mut image = image;
        // The last field is where in its own translated code the library was: of no meaning to the next run.
        if uc.get_arch() == Arch::X86
            && let Some(field) = image.bytes_mut().last_chunk_mut::<RETURN_ADDRESS>()
        {
            field.fill(0);
        }
        if matches!(uc.get_arch(), Arch::ARM | Arch::ARM64)
            && let Some(fields) = image.bytes_mut().get_mut(RAISED)
        {
            fields.fill(0);
        }
        Ok(image)
    }

    /// The same at a privilege level of x86.
    pub(crate) fn with_level(mut self, level: u64) -> Self {
        if let Some(flags) = self.bytes_mut().get_mut(HIDDEN_FLAGS) {
            *flags = *flags & !3 | (level & 3) as u8;
        }
        self
    }

    /// Puts it back into an instance of the same architecture and model.
    pub(crate) fn restore(&self, uc: &Unicorn<'_, Guest>) -> Result<(), MachineError> {
        // SAFETY: both are alive, and the copy is as long as that instance's structure: checked.
        let restored = unsafe {
            if sys::uc_context_size(uc.get_handle()).saturating_sub(HEAD) != self.length {
                return Err(MachineError("registers of another kind of processor".to_owned()));
            }
            sys::uc_context_restore(uc.get_handle(), self.context.as_ptr())
        };
        Result::from(restored).map_err(failed("restoring registers"))
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the allocation has a head of this length.
        unsafe { self.context.as_ptr().cast::<u8>().add(HEAD) }
    }

    /// The copy.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes after the head belong to the allocation and were initialised in `of`.
        unsafe { std::slice::from_raw_parts(self.data(), self.length) }
    }

    /// The copy, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is unique, and the library keeps no pointer into it.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.length) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: made by uc_context_alloc, freed once.
        let _ = unsafe { sys::uc_context_free(self.context.as_ptr()) };
    }
}
