//! Faults are typed outcomes, and name the instruction.

use hotcell_schema::{
    guest::Address,
    outcome::{Fault, FaultKind, Outcome},
};

use super::{CODE, run};

fn fault(arch: &str, hexadecimal: &str, registers: &[(&str, u64)]) -> Fault {
    let bytes = hex::decode(hexadecimal).expect("hexadecimal");
    match run(arch, &bytes, registers, |_| {}).outcome {
        Outcome::Faulted(fault) => fault,
        other => panic!("{arch} {hexadecimal}: {other:?}"),
    }
}

fn check(
    arch: &str,
    hexadecimal: &str,
    registers: &[(&str, u64)],
    kind: FaultKind,
    pc: u64,
    address: Option<u64>,
) {
    let fault = fault(arch, hexadecimal, registers);
    assert_eq!(
        (fault.kind, fault.pc, fault.address),
        (kind, Address(pc), address.map(Address)),
        "{arch} {hexadecimal}"
    );
}

/// A load from an unmapped address behind one other instruction.
#[test]
fn unmapped_reads() {
    let kind = FaultKind::ReadUnmapped;
    let bad = 0x66_0000;
    // nop; mov (%rcx),%rax
    check("x86_64", "90488b01", &[("rcx", bad)], kind, CODE + 1, Some(bad));
    check("x86", "908b01", &[("ecx", bad)], kind, CODE + 1, Some(bad));
    // mov r0,r0; ldr r0,[r1]
    check(
        "arm",
        "0000a0e1000091e5",
        &[("r1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    check(
        "aarch64",
        "1f2003d5200040f9",
        &[("x1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    // nop; lw v0,0(a1)
    check(
        "mipsel",
        "000000000000a28c",
        &[("a1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    check(
        "mips",
        "000000008ca20000",
        &[("a1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    check(
        "mips64",
        "000000008ca20000",
        &[("a1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    // nop; lwz 3,0(4)
    check(
        "ppc",
        "6000000080640000",
        &[("r4", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
    // nop; ld a0,0(a1)
    check(
        "riscv64",
        "1300000003b50500",
        &[("a1", bad)],
        kind,
        CODE + 4,
        Some(bad),
    );
}

#[test]
fn illegal_instructions() {
    let kind = FaultKind::IllegalInstruction;
    check("x86_64", "900f0b", &[], kind, CODE + 1, None);
    check("x86", "900f0b", &[], kind, CODE + 1, None);
    check("arm", "0000a0e1f000f0e7", &[], kind, CODE + 4, None);
    check("aarch64", "1f2003d500000000", &[], kind, CODE + 4, None);
    check("mipsel", "00000000ffffffff", &[], kind, CODE + 4, None);
    check("mips64el", "00000000000000ec", &[], kind, CODE + 4, None);
    check("ppc", "6000000000000000", &[], kind, CODE + 4, None);
    check("riscv64", "1300000000000000", &[], kind, CODE + 4, None);
}

/// A jump to an unmapped address, and to address zero, which is not an end like any other.
#[test]
fn unmapped_jumps() {
    let kind = FaultKind::FetchUnmapped;
    for bad in [0x66_0000, 0] {
        check("x86_64", "ffe1", &[("rcx", bad)], kind, bad, Some(bad));
        check("arm", "11ff2fe1", &[("r1", bad)], kind, bad, Some(bad));
        check("aarch64", "20001fd6", &[("x1", bad)], kind, bad, Some(bad));
        check("mipsel", "0800a00000000000", &[("a1", bad)], kind, bad, Some(bad));
    }
}

#[test]
fn division_by_zero_and_halting() {
    check("x86_64", "31c9f7f1", &[], FaultKind::Arithmetic, CODE + 2, None);
    check("x86_64", "90f490", &[], FaultKind::Exception, CODE + 1, None);
    check("x86", "90cc90", &[], FaultKind::Breakpoint, CODE + 1, None);
    // break
    check(
        "mipsel",
        "000000000d000000",
        &[],
        FaultKind::Breakpoint,
        CODE + 4,
        None,
    );
}

/// There is no kernel: what calls one ends the run, on x86 too, where the C library would pass over it.
#[test]
fn system_calls() {
    let kind = FaultKind::Exception;
    for call in ["0f05", "0f34"] {
        for arch in ["x86_64", "x86"] {
            check(arch, &format!("90{call}90"), &[], kind, CODE + 1, None);
        }
    }
    check("x86", "90cd8090", &[], kind, CODE + 1, None);
    check("aarch64", "1f2003d5010000d41f2003d5", &[], kind, CODE + 4, None);
}

/// `wait` stops a MIPS processor; that is not the end of the code, however near that is.
#[test]
fn mips_halts_and_ends() {
    let kind = FaultKind::Exception;
    for (arch, nop, wait, jump) in [
        ("mips", "00000000", "42000020", "00a00008"),
        ("mipsel", "00000000", "20000042", "0800a000"),
        ("mips64", "00000000", "42000020", "00a00008"),
        ("mips64el", "00000000", "20000042", "0800a000"),
    ] {
        for behind in 1..4 {
            let code = format!("{nop}{wait}{}", nop.repeat(behind));
            check(arch, &code, &[], kind, CODE + 4, None);
        }
        // jr a1 with its delay slot, to the end: from the last place and from farther off.
        for behind in 0..3 {
            let bytes = hex::decode(format!("{nop}{jump}{nop}{}", nop.repeat(behind))).expect("hexadecimal");
            let result = run(arch, &bytes, &[("a1", CODE + bytes.len() as u64)], |_| {});
            assert_eq!(
                (result.outcome, result.instructions),
                (Outcome::Completed, 3),
                "{arch}"
            );
        }
        // The end in the middle of a block.
        let bytes = hex::decode(nop.repeat(8)).expect("hexadecimal");
        let result = run(arch, &bytes, &[], |job| job.until = Some(Address(CODE + 16)));
        assert_eq!(
            (result.outcome, result.instructions),
            (Outcome::Completed, 4),
            "{arch}"
        );
    }
}

/// The three defects of the plain library that `patches/` mends; each one crashed the process.
#[test]
fn mips_defects_are_mended() {
    if !crate::identity::is_patched() {
        eprintln!(
            "SKIPPED: this build links the plain Unicorn library (see `cargo run -p xtask -- unicorn-library`)"
        );
        return;
    }
    for arch in ["mips", "mipsel", "mips64", "mips64el"] {
        // A straight block of 900 times `addiu v0,v0,1`.
        let one: [u8; 4] = if arch.ends_with("el") {
            [1, 0, 0x42, 0x24]
        } else {
            [0x24, 0x42, 0, 1]
        };
        let block = one.repeat(900);
        let result = run(arch, &block, &[], |_| {});
        assert_eq!((result.outcome, result.instructions), (Outcome::Completed, 900));
    }
}
