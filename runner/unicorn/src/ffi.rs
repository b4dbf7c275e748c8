//! The one function of Unicorn's C interface that the bindings have no safe door to.
#![allow(unsafe_code)]

/// What `uc_version()` returns: major, minor, patch and a mark of the build, a byte each.
pub(crate) fn unicorn_version() -> u32 {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to live local variables of the type the function writes.
    unsafe { unicorn_engine::hook::sys::uc_version(&mut major, &mut minor) }
}
