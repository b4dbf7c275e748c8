//! Landlock by raw system calls: in a warden nothing may be allocated.
//!
//! # Safety
//! Every `unsafe fn` here may be called only in a process made by
//! [`births::clone_process`](crate::supervise::births::clone_process).
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::ptr;

use libc::c_long;

/// A Landlock ruleset to be.
#[derive(Debug)]
pub(super) struct Landlock {
    /// Version of the kernel's interface.
    pub(super) version: i32,
    /// File access that is handled: allowed only where a rule says so.
    pub(super) files: u64,
    /// Network access that is handled.
    pub(super) network: u64,
    /// Scopes.
    pub(super) scopes: u64,
    /// Paths as the warden sees them, and what is allowed beneath. What is not there is left out.
    pub(super) rules: Vec<(CString, u64)>,
}

/// Version of Landlock's interface in this kernel; 0: none.
pub(super) fn version() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: asks for a number, with no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<c_void>(),
            0_usize,
            VERSION,
        )
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// A new ruleset's descriptor, closed on exec; negative: none.
unsafe fn new_ruleset(landlock: &Landlock) -> c_long {
    #[repr(C)]
    struct Ruleset {
        files: u64,
        network: u64,
        scopes: u64,
    }
    let ruleset = Ruleset {
        files: landlock.files,
        network: landlock.network,
        scopes: landlock.scopes,
    };
    let known: usize = match landlock.version {
        ..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: the kernel reads a structure of this stack.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &ruleset, known, 0) }
}

/// Confines this process and all that it will start.
///
/// # Safety
/// Only in a process made by [`births::clone_process`](crate::supervise::births::clone_process).
pub(super) unsafe fn restrict(landlock: &Landlock) -> Result<(), ()> {
    #[repr(C, packed)]
    struct Beneath {
        allowed: u64,
        parent: i32,
    }
    const PATH_BENEATH: c_int = 1;
    // SAFETY: raw system calls over structures of this stack and strings that the parent made.
    unsafe {
        let rules = new_ruleset(landlock);
        if rules < 0 {
            return Err(());
        }
        for (path, allowed) in &landlock.rules {
            let parent = libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            if parent < 0 {
                continue;
            }
            let rule = Beneath {
                allowed: *allowed,
                parent,
            };
            let added = libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, &rule, 0);
            libc::close(parent);
            if added != 0 {
                return Err(());
            }
        }
        let restricted = libc::syscall(libc::SYS_landlock_restrict_self, rules, 0);
        libc::close(rules as c_int);
        match restricted {
            0 => Ok(()),
            _ => Err(()),
        }
    }
}
