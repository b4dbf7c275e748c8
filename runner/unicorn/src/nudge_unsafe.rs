//! Stops the emulator at the next block when the runner says something: a guest that only computes never looks up by itself.
//!
//! Where blocks are hooked, the hook looks. Where they are not, the signal's handler stops the emulator, which then ends
//! between two blocks. It may come a moment too early, between a look and the start: the runner says it again.
#![allow(unsafe_code)]

use std::{
    ffi::c_int,
    io,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};

use hotcell_cells::cell_side::on_nudge;
use unicorn_engine::{Unicorn, hook::sys, hook::uc_engine};

use crate::machine::Guest;

static ASKED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicPtr<uc_engine> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn nudged(_: c_int) {
    ASKED.store(true, Ordering::SeqCst);
    let running = RUNNING.load(Ordering::SeqCst);
    if !running.is_null() {
        // SAFETY: the pointer is that of an instance that runs on this, the only, thread: the guard takes it away before
        // the instance can go. Stopping sets flags and nothing else.
        let _ = unsafe { sys::uc_emu_stop(running) };
    }
}

/// Listens to the runner's nudges from now on.
pub(crate) fn listen() -> io::Result<()> {
    // SAFETY: the handler writes and reads atomic variables and sets flags of the emulator; it allocates and locks nothing.
    unsafe { on_nudge(nudged) }
}

/// Whether the runner said something since [`heard`].
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// What was said is being looked at.
pub(crate) fn heard() {
    ASKED.store(false, Ordering::SeqCst);
}

/// Lets the handler stop this instance, until the guard is dropped.
pub(crate) fn stops(uc: &Unicorn<'_, Guest>) -> Guard {
    Guard(RUNNING.swap(uc.get_handle(), Ordering::SeqCst))
}

/// Keeps the handler from stopping any instance, until the guard is dropped: within hooks.
pub(crate) fn held() -> Guard {
    Guard(RUNNING.swap(std::ptr::null_mut(), Ordering::SeqCst))
}

/// Puts back what was before.
pub(crate) struct Guard(*mut uc_engine);

impl Drop for Guard {
    fn drop(&mut self) {
        RUNNING.store(self.0, Ordering::SeqCst);
    }
}
