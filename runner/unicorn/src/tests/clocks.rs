//! Every clock and source of chance that an instruction can read, on every architecture: none is the host's.

use hotcell_schema::{guest::Address, outcome::Outcome};

use super::{DATA, register, run};

/// What a read must give.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Want {
    /// Instructions executed, times a factor (above and below the line).
    Scaled(u64, u64),
    /// The first number of a seeded sequence.
    Seeded,
    /// The same value always.
    Constant(u64),
    /// The processor refuses it.
    Refused,
}

use Want::{Constant, Refused, Scaled, Seeded};

/// Architecture, what it is, its code, where the value is, what it must be.
const READS: &[(&str, &str, &str, &str, Want)] = &[
    (
        "x86_64",
        "rdtsc; shl $32,%rdx; or %rdx,%rax",
        "0f3148c1e2204809d0",
        "rax",
        Scaled(1, 1),
    ),
    (
        "x86_64",
        "rdtscp; shl $32,%rdx; or %rdx,%rax",
        "0f01f948c1e2204809d0",
        "rax",
        Scaled(1, 1),
    ),
    ("x86_64", "rdrand %rax", "480fc7f0", "rax", Seeded),
    ("x86_64", "rdseed %rax", "480fc7f8", "rax", Seeded),
    ("x86", "rdtsc", "0f31", "eax", Scaled(1, 1)),
    ("x86", "rdrand %eax", "0fc7f0", "eax", Seeded),
    ("aarch64", "mrs x0, cntvct_el0", "40e03bd5", "x0", Scaled(1, 16)),
    ("aarch64", "mrs x0, cntpct_el0", "20e03bd5", "x0", Scaled(1, 16)),
    ("aarch64", "mrs x0, pmccntr_el0", "009d3bd5", "x0", Constant(0)),
    ("aarch64", "mrs x0, rndr", "00243bd5", "x0", Refused),
    ("arm", "mrrc p15, 1, r0, r1, c14", "1e0f51ec", "r0", Scaled(1, 16)),
    ("arm", "mrrc p15, 0, r0, r1, c14", "0e0f51ec", "r0", Scaled(1, 16)),
    ("arm", "mrc p15, 0, r0, c9, c13, 0", "1d0f19ee", "r0", Constant(0)),
    ("mips", "mfc0 $2, $9", "40024800", "v0", Scaled(1, 10)),
    ("mips", "rdhwr $2, $2", "7c02103b", "v0", Scaled(1, 10)),
    ("mipsel", "mfc0 $2, $9", "00480240", "v0", Scaled(1, 10)),
    ("mipsel", "rdhwr $2, $2", "3b10027c", "v0", Scaled(1, 10)),
    ("mips64", "mfc0 $2, $9", "40024800", "v0", Scaled(1, 10)),
    ("mips64", "rdhwr $2, $2", "7c02103b", "v0", Scaled(1, 10)),
    ("ppc", "mftb 3", "7c6c42e6", "r3", Constant(0)),
    ("ppc", "mftbu 3", "7c6d42e6", "r3", Constant(0)),
    ("ppc", "mfspr 3, 22", "7c7602a6", "r3", Constant(0)),
    ("ppc64", "mftb 3", "7c6c42e6", "r3", Constant(0)),
    ("ppc64", "darn 3, 1", "7c6105e6", "r3", Seeded),
    ("riscv64", "rdcycle a0", "732500c0", "a0", Scaled(1, 1)),
    ("riscv64", "rdtime a0", "732510c0", "a0", Scaled(1, 100)),
    ("riscv64", "rdinstret a0", "732520c0", "a0", Scaled(1, 1)),
    (
        "s390x",
        "stck 0(%r2); lg %r3,0(%r2)",
        "b2052000e33020000004",
        "r3",
        Scaled(4096, 1000),
    ),
    (
        "s390x",
        "stckf 0(%r2); lg %r3,0(%r2)",
        "b27c2000e33020000004",
        "r3",
        Scaled(4096, 1000),
    ),
    (
        "s390x",
        "stcke 0(%r2); lg %r3,0(%r2)",
        "b2782000e33020000004",
        "r3",
        Scaled(4096, 256_000),
    ),
    // Counts down from zero: nanoseconds as in the clock above.
    (
        "s390x",
        "stpt 0(%r2); lg %r3,0(%r2)",
        "b2092000e33020000004",
        "r3",
        Constant(1_770_887_431_076_112_764),
    ),
];

fn nop(arch: &str) -> Vec<u8> {
    hex::decode(match arch {
        "x86" | "x86_64" => "90",
        "aarch64" => "1f2003d5",
        "arm" => "00f020e3",
        "ppc" | "ppc64" => "60000000",
        "riscv64" => "13000000",
        "s390x" => "0700",
        _ => "00000000",
    })
    .expect("hexadecimal")
}

/// The value of one read behind 999 other instructions, in a run of its own.
fn read(arch: &str, code: &str, out: &str) -> (Outcome, u64) {
    let mut bytes = nop(arch).repeat(999);
    bytes.extend(hex::decode(code).expect("hexadecimal"));
    let result = run(arch, &bytes, &[], |job| {
        if arch == "s390x" {
            job.registers.insert("r2".into(), Address(DATA));
        }
    });
    let value = register(&result, out);
    (result.outcome, value)
}

#[test]
fn no_clock_is_the_hosts() {
    for (arch, text, code, out, want) in READS {
        let (outcome, value) = read(arch, code, out);
        let again = read(arch, code, out);
        assert_eq!(
            (&outcome, value),
            (&again.0, again.1),
            "{arch}: {text} differs between two runs"
        );
        match want {
            Scaled(above, below) => assert_eq!(value, 1000 * above / below, "{arch}: {text}"),
            Constant(wanted) => assert_eq!(value, *wanted, "{arch}: {text}"),
            Seeded => assert_eq!(value, first_random(arch), "{arch}: {text}"),
            Refused => assert!(
                matches!(outcome, Outcome::Faulted(_)),
                "{arch}: {text}: {outcome}"
            ),
        }
        if *want != Refused {
            assert_eq!(outcome, Outcome::Completed, "{arch}: {text}");
        }
    }
}

/// The first number of the fixed sequence that raw code gets (SplitMix64 from zero).
fn first_random(arch: &str) -> u64 {
    let first = 0xe220_a839_7b1d_cdaf;
    if arch == "x86" {
        first & u64::from(u32::MAX)
    } else {
        first
    }
}
