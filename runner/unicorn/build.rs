//! Puts our own functions before the places where Unicorn reads the host's clocks and randomness.
//!
//! `--wrap=f` makes every call of `f` from another object of the C library go to `__wrap_f`, which
//! `src/clocks_unsafe.rs` defines. So the library needs no patch for it, and the plain one is covered too.

fn main() {
    for symbol in [
        "qemu_clock_get_ns",
        "qemu_guest_getrandom",
        "cpu_get_ticks_x86_64",
        "riscv_csrrw_riscv64",
        "helper_stck",
    ] {
        println!("cargo:rustc-link-arg=-Wl,--wrap={symbol}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
