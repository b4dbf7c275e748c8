//! A warden's root: the system's folders read-only, folders to write into with a bound, and no trace of the host's paths.
//!
//! # Safety
//! Every `unsafe fn` here may be called only in a process made by
//! [`births::clone_process`](crate::supervise::births::clone_process), in a mount namespace of its own.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ptr;

use super::step::{self, holds};

/// A root of its own: a folder with empty places over which the system's are bound.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: CString,
    /// Folders of the system: source, and place under `path`. Read-only.
    pub(super) system: Vec<(CString, CString)>,
    /// Devices: source, and place.
    pub(super) devices: Vec<(CString, CString)>,
    /// Place of a new `/proc`.
    pub(super) proc: CString,
    /// What lies in the system's folders and is not for commands: its place, and whether it is a folder.
    pub(super) hidden: Vec<(CString, bool)>,
    /// The work folder. Read-only, but for what is mounted in it.
    pub(super) work: CString,
    /// Folders that a command may write into.
    pub(super) scratch: Scratch,
    /// Whether to use `mount_setattr`.
    pub(super) deep: bool,
}

/// What a command writes: a file system of its own, in memory, whose size and number of files are bounded.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Its mount options; none: folders of the host's file system do instead.
    pub(super) options: Option<CString>,
    /// Where it is mounted, and at last the folder for temporary files.
    pub(super) tmp: CString,
    /// Its two folders.
    pub(super) parts: [CString; 2],
    /// Where outputs are written.
    pub(super) outputs: CString,
    /// Who may write.
    pub(super) owner: Option<u32>,
}

unsafe fn bind(source: &CStr, place: &CStr, flags: libc::c_ulong) -> bool {
    // SAFETY: a raw system call over strings that the parent made.
    unsafe {
        let flags = libc::MS_BIND | flags;
        libc::mount(source.as_ptr(), place.as_ptr(), ptr::null(), flags, ptr::null()) == 0
    }
}

/// Makes a mount read-only, if it can with all that is mounted in it. `None`: it could not. `Some(false)`: only the mount itself.
unsafe fn make_read_only(place: &CStr, all: bool, deep: bool) -> Option<bool> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: MountAttributes = MountAttributes {
        set: 1 | 2, // MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    const AT_RECURSIVE: c_int = 0x8000;
    /// `statvfs` tells what holds of a mount; what holds must be said again, or the kernel takes it for taken away.
    const KEPT: [(u64, libc::c_ulong); 5] = [
        (4, libc::MS_NODEV),
        (8, libc::MS_NOEXEC),
        (1024, libc::MS_NOATIME),
        (2048, libc::MS_NODIRATIME),
        (4096, libc::MS_RELATIME),
    ];
    // SAFETY: raw system calls over strings that the parent made, a constant, and a structure of this stack.
    unsafe {
        if deep
            && libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                place.as_ptr(),
                if all { AT_RECURSIVE } else { 0 },
                &READ_ONLY,
                mem::size_of::<MountAttributes>(),
            ) == 0
        {
            return Some(true);
        }
        let mut facts = MaybeUninit::<libc::statvfs>::zeroed();
        if libc::statvfs(place.as_ptr(), facts.as_mut_ptr()) != 0 {
            return None;
        }
        let there = facts.assume_init().f_flag;
        let mut flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID;
        for (bit, flag) in KEPT {
            if there & bit != 0 {
                flags |= flag;
            }
        }
        let none = ptr::null::<c_char>();
        match libc::mount(none, place.as_ptr(), none, flags, ptr::null()) {
            0 => Some(!all),
            _ => None,
        }
    }
}

/// Mounts what a command writes into. False: the folders of the host's file system it is.
unsafe fn make_scratch(scratch: &Scratch) -> bool {
    let Some(options) = &scratch.options else {
        return false;
    };
    // SAFETY: raw system calls over strings that the parent made.
    unsafe {
        let kind = c"tmpfs".as_ptr();
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        if libc::mount(kind, scratch.tmp.as_ptr(), kind, flags, options.as_ptr().cast()) != 0 {
            return false;
        }
        let [outputs, tmp] = &scratch.parts;
        let made = scratch.parts.iter().all(|part| {
            let mode: libc::mode_t = 0o755;
            // Whatever mask the runner has.
            libc::mkdir(part.as_ptr(), mode) == 0
                && libc::chmod(part.as_ptr(), mode) == 0
                && scratch
                    .owner
                    .is_none_or(|owner| libc::chown(part.as_ptr(), owner, owner) == 0)
        });
        // The second covers the first, in which the outputs stay.
        if made && bind(outputs, &scratch.outputs, 0) {
            if bind(tmp, &scratch.tmp, 0) {
                return true;
            }
            libc::umount2(scratch.outputs.as_ptr(), libc::MNT_DETACH);
        }
        libc::umount2(scratch.tmp.as_ptr(), libc::MNT_DETACH);
        false
    }
}

/// Makes the root of its own and goes there. Returns what holds, and a descriptor for [`leave_mounts`]; negative: none.
///
/// # Safety
/// Only in a process made by [`births::clone_process`](crate::supervise::births::clone_process).
pub(super) unsafe fn enter(root: &Root) -> Result<(i32, c_int), u32> {
    let none = ptr::null::<c_char>();
    let mut held = 0;
    // SAFETY: raw system calls over strings that the parent made.
    unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(none, c"/".as_ptr(), none, private, ptr::null()) != 0 {
            return Err(step::PRIVATE_MOUNTS);
        }
        if !bind(&root.path, &root.path, 0) {
            return Err(step::ROOT_FOLDER);
        }
        let mut deeply = true;
        for (source, place) in &root.system {
            if !bind(source, place, libc::MS_REC) {
                return Err(step::SYSTEM_FOLDERS);
            }
            deeply &= make_read_only(place, true, root.deep).ok_or(step::READ_ONLY)?;
        }
        if deeply {
            held |= holds::DEEPLY_READ_ONLY;
        }
        for (place, is_folder) in &root.hidden {
            let hides = match is_folder {
                true => {
                    let kind = c"tmpfs".as_ptr();
                    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
                    let options = c"size=4k,mode=555".as_ptr().cast::<c_void>();
                    libc::mount(kind, place.as_ptr(), kind, flags, options) == 0
                }
                false => bind(c"/dev/null", place, 0),
            };
            if !hides {
                return Err(step::HIDING);
            }
        }
        for (source, place) in &root.devices {
            if !bind(source, place, 0) {
                return Err(step::SYSTEM_FOLDERS);
            }
        }
        held |= mount_proc(&root.proc);
        if !bind(&root.work, &root.work, 0) {
            return Err(step::SYSTEM_FOLDERS);
        }
        if make_scratch(&root.scratch) {
            held |= holds::SCRATCH;
        } else {
            // Mounts of their own, which stay writable.
            for place in [&root.scratch.outputs, &root.scratch.tmp] {
                if !bind(place, place, 0) {
                    return Err(step::SYSTEM_FOLDERS);
                }
            }
        }
        for place in [&root.work, &root.path] {
            make_read_only(place, false, root.deep).ok_or(step::READ_ONLY)?;
        }
        if libc::chdir(root.path.as_ptr()) != 0
            || libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) != 0
            || libc::umount2(c".".as_ptr(), libc::MNT_DETACH) != 0
            || libc::chdir(c"/".as_ptr()) != 0
        {
            return Err(step::PIVOT);
        }
        // A copy of the whole tree that belongs to no namespace: whoever lives in it is shown no mounts.
        const OPEN_TREE_CLONE: c_int = 1;
        const AT_RECURSIVE: c_int = 0x8000;
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC;
        let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), flags);
        Ok((held, tree as c_int))
    }
}

unsafe fn mount_proc(place: &CStr) -> i32 {
    let kind = c"proc".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: raw system calls over constants and a string that the parent made.
    let mounted = |options: &CStr| unsafe {
        libc::mount(kind, place.as_ptr(), kind, flags, options.as_ptr().cast()) == 0
    };
    if mounted(c"hidepid=2,subset=pid") {
        holds::OWN_PROC | holds::BARE_PROC
    } else if mounted(c"hidepid=2") {
        holds::OWN_PROC
    } else {
        0
    }
}

/// Goes where no list of mounts is. The descriptor stays open: the tree lives as long as it.
///
/// # Safety
/// Only in a process made by [`births::clone_process`](crate::supervise::births::clone_process).
pub(super) unsafe fn leave_mounts(tree: c_int) -> bool {
    // SAFETY: raw system calls over a number and a constant.
    unsafe {
        let left = libc::fchdir(tree) == 0 && libc::chroot(c".".as_ptr()) == 0;
        libc::chdir(c"/".as_ptr()) == 0 && left
    }
}
