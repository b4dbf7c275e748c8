//! The host's clocks and randomness, as Unicorn's C code asks for them, answered from the kernel's virtual time.
//!
//! Every instruction that reads a clock ends in one of a few C functions: `qemu_clock_get_ns` (aarch64 CNTVCT and
//! CNTPCT, arm generic timer, s390x CPU timer), `cpu_get_ticks_x86_64` (RDTSC, RDTSCP), `riscv_csrrw_riscv64` (cycle,
//! time, instret), `helper_mfc0_count*` and `helper_rdhwr_cc*` (MIPS Count, which the C library keeps at zero), `helper_stck` (s390x
//! STCK) and `qemu_guest_getrandom` (RDRAND, RDSEED, RNDR, DARN). The linker replaces them (`build.rs`).
//! The PowerPC timebase is not there at all: the C library compiles its reading out and copies a register that stays
//! zero, so that no function is called which could be replaced.
//!
//! CPUID ends in `cpu_x86_cpuid_x86_64`, which says of Unicorn's model of a processor that it is an emulator's; it is replaced in the same way.
//!
//! In: a call in the middle of a guest instruction. Out: a value of the [`Source`] that is active on this thread
//! while a guest runs; outside a run, zero. `src/tests/clocks.rs` reads them all on every architecture.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    rc::Rc,
};

use hotcell_kernel::machine::Clock;

/// Answers clock reads of the running guest.
pub(crate) trait Source {
    /// The value of a clock now.
    fn read(&self, clock: Clock) -> u64;

    /// What CPUID says of a leaf: EAX, EBX, ECX, EDX. `library` is what the library says of one.
    fn identify(&self, leaf: u32, index: u32, library: &dyn Fn(u32, u32) -> [u32; 4]) -> [u32; 4] {
        library(leaf, index)
    }
}

thread_local! {
    static ACTIVE: RefCell<Option<Rc<dyn Source>>> = const { RefCell::new(None) };
}

/// Makes `source` answer on this thread until the guard is dropped.
pub(crate) fn activate(source: Rc<dyn Source>) -> Guard {
    Guard(ACTIVE.replace(Some(source)))
}

/// Puts the former source back.
pub(crate) struct Guard(Option<Rc<dyn Source>>);

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.set(self.0.take());
    }
}

/// The source that is active. It is cloned out, so that it may itself be replaced while it answers.
fn active() -> Option<Rc<dyn Source>> {
    ACTIVE.with(|active| active.try_borrow().ok().and_then(|source| source.clone()))
}

fn read(clock: Clock) -> u64 {
    active().map_or(0, |source| source.read(clock))
}

/// Nanoseconds, for timers that the C code scales to their own frequency.
#[unsafe(no_mangle)]
extern "C" fn __wrap_qemu_clock_get_ns(_kind: c_int) -> i64 {
    (read(Clock::Timer { hertz: 1_000_000_000 }) & i64::MAX as u64) as i64
}

/// The x86 time stamp counter.
#[unsafe(no_mangle)]
extern "C" fn __wrap_cpu_get_ticks_x86_64() -> i64 {
    (read(Clock::Cycles) & i64::MAX as u64) as i64
}

/// The s390x time-of-day clock: bit 51 counts microseconds (z/Architecture Principles of Operation, chapter 4).
#[unsafe(no_mangle)]
extern "C" fn __wrap_helper_stck(_env: *mut c_void) -> u64 {
    read(Clock::Timer { hertz: 4_096_000_000 })
}

/// Random bytes for a guest instruction.
#[unsafe(no_mangle)]
extern "C" fn __wrap_qemu_guest_getrandom(into: *mut u8, length: usize) -> c_int {
    let mut at = 0usize;
    while at < length {
        let bytes = read(Clock::Random).to_ne_bytes();
        let count = bytes.len().min(length - at);
        // SAFETY: the C caller owns `length` bytes at `into`; `at + count` never passes `length`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), into.add(at), count) };
        at += count;
    }
    0
}

unsafe extern "C" {
    fn __real_riscv_csrrw_riscv64(env: *mut c_void, csr: c_int, old: *mut u64, new: u64, mask: u64) -> c_int;
}

/// Every access to a RISC-V control and status register; the three user counters are answered here.
#[unsafe(no_mangle)]
extern "C" fn __wrap_riscv_csrrw_riscv64(
    env: *mut c_void,
    csr: c_int,
    old: *mut u64,
    new: u64,
    mask: u64,
) -> c_int {
    // Numbers: RISC-V unprivileged specification, chapter "Zicntr". Linux gives `time` 10 MHz on most boards.
    let clock = match csr {
        0xc00 | 0xc02 => Clock::Cycles,
        0xc01 => Clock::Timer { hertz: 10_000_000 },
        // SAFETY: the arguments are those of the caller of the function that stands behind us.
        _ => return unsafe { __real_riscv_csrrw_riscv64(env, csr, old, new, mask) },
    };
    if mask != 0 {
        // They are read-only: -1 makes the caller raise an illegal instruction, as the C code does itself.
        return -1;
    }
    if !old.is_null() {
        // SAFETY: not null, and the caller passes the address of a local variable of this type.
        unsafe { *old = read(clock) };
    }
    0
}

unsafe extern "C" {
    fn __real_cpu_x86_cpuid_x86_64(
        env: *mut c_void,
        leaf: u32,
        index: u32,
        a: *mut u32,
        b: *mut u32,
        c: *mut u32,
        d: *mut u32,
    );
}

/// CPUID, answered by who knows what processor this is.
#[unsafe(no_mangle)]
extern "C" fn __wrap_cpu_x86_cpuid_x86_64(
    env: *mut c_void,
    leaf: u32,
    index: u32,
    a: *mut u32,
    b: *mut u32,
    c: *mut u32,
    d: *mut u32,
) {
    let library = |leaf: u32, index: u32| {
        let [mut a, mut b, mut c, mut d] = [0u32; 4];
        // SAFETY: `env` is the caller's, and the others are local variables of the right type.
        unsafe { __real_cpu_x86_cpuid_x86_64(env, leaf, index, &mut a, &mut b, &mut c, &mut d) };
        [a, b, c, d]
    };
    let words = match active() {
        Some(source) => source.identify(leaf, index, &library),
        None => library(leaf, index),
    };
    for (place, word) in [a, b, c, d].into_iter().zip(words) {
        if !place.is_null() {
            // SAFETY: not null, and the caller passes the address of a local variable of this type.
            unsafe { *place = word };
        }
    }
}

macro_rules! mips_counter {
    ($($name:ident)*) => {
        $(
            /// The MIPS cycle counter, at 100 MHz, sign-extended from 32 bits as a register of 64 needs it.
            #[unsafe(no_mangle)]
            extern "C" fn $name(_env: *mut c_void) -> u64 {
                i64::from(read(Clock::Timer { hertz: 100_000_000 }) as i32) as u64
            }
        )*
    };
}

mips_counter! {
    __wrap_helper_mfc0_count_mips __wrap_helper_mfc0_count_mipsel
    __wrap_helper_mfc0_count_mips64 __wrap_helper_mfc0_count_mips64el
    __wrap_helper_rdhwr_cc_mips __wrap_helper_rdhwr_cc_mipsel
    __wrap_helper_rdhwr_cc_mips64 __wrap_helper_rdhwr_cc_mips64el
}
