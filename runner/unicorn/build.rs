//! Puts our own functions before the places where Unicorn reads the host's clocks and randomness, and says what processor it is.
//!
//! `--wrap=f` makes every call of `f` from another object of the C library go to `__wrap_f`, which
//! `src/clocks_unsafe.rs` defines. So the library needs no patch for it, and the plain one is covered too.

fn main() {
    let one_each = [
        "qemu_clock_get_ns",
        "qemu_guest_getrandom",
        "cpu_get_ticks_x86_64",
        "cpu_x86_cpuid_x86_64",
        "riscv_csrrw_riscv64",
        "helper_stck",
    ];
    let mips = ["mips", "mipsel", "mips64", "mips64el"];
    let counters = ["helper_mfc0_count", "helper_rdhwr_cc"];
    let of_mips = counters
        .iter()
        .flat_map(|name| mips.iter().map(move |target| format!("{name}_{target}")));
    for symbol in one_each.into_iter().map(str::to_owned).chain(of_mips) {
        println!("cargo:rustc-link-arg-bins=-Wl,--wrap={symbol}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
