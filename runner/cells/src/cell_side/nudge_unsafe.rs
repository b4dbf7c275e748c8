//! The runner's nudge: a signal that says that something was said.
//!
//! A cell that computes for long without a look at its socket lets a handler of its own stop it at the next safe point.
//! `SIGURG`, because a cell without a handler ignores it (`signal(7)`).
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// Makes `handler` run, on the thread that is interrupted, when the runner nudges this process.
///
/// # Safety
///
/// The handler may be called between any two instructions of the program: it must keep to what `signal-safety(7)` allows, as
/// atomic variables do.
pub unsafe fn on_nudge(handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero bytes are a valid sigaction (no flags, no restorer); the mask is initialised by sigemptyset, and the
    // handler has the type that goes with flags without SA_SIGINFO. The caller vouches for what it does.
    unsafe {
        let set = action.assume_init_mut();
        set.sa_sigaction = handler as *const () as libc::sighandler_t;
        // Interrupted reads and writes go on by themselves.
        set.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut set.sa_mask);
        match libc::sigaction(libc::SIGURG, set, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
