//! `1 + 2 + … + 100` on every architecture, with a trace that capstone confirms.

use hotcell_schema::{guest::Address, outcome::Outcome};

use super::{CODE, DATA, code, register, run};

fn sum(arch: &str, name: &str, out: &str, memory: &str, per_round: u64, around: u64, big_endian: bool) {
    let thumb = u64::from(name == "thumb");
    let bytes = code(&format!("sum.{name}"));
    let result = run(arch, &bytes, &[(memory, DATA)], |job| {
        job.trace = 1000;
        job.address = Address(CODE | thumb);
    });
    assert_eq!(result.outcome, Outcome::Completed, "{result:?}");
    assert_eq!(register(&result, out), 5050);
    let stored = result.memory[0]
        .bytes
        .0
        .get(..4)
        .expect("eight bytes were asked for")
        .to_vec();
    let expected = if big_endian {
        5050u32.to_be_bytes()
    } else {
        5050u32.to_le_bytes()
    };
    assert_eq!(stored, expected);
    assert_eq!(result.instructions, 100 * per_round + around);
    assert_eq!(result.trace.len() as u64, result.instructions);
    assert_eq!(
        result.disagreements,
        0,
        "{:?}",
        result.trace.iter().take(10).collect::<Vec<_>>()
    );
    assert!(result.trace.iter().all(|one| !one.text.is_empty()));
    // The trace is of this very code.
    for one in &result.trace {
        let at = (one.address.0 - CODE) as usize;
        assert_eq!(
            bytes.get(at..at + one.bytes.0.len()),
            Some(one.bytes.0.as_slice())
        );
    }
    let again = run(arch, &bytes, &[(memory, DATA)], |job| {
        job.trace = 1000;
        job.address = Address(CODE | thumb);
    });
    assert_eq!(result, again);
}

macro_rules! sums {
    ($($test:ident: $arch:literal $name:literal, $out:literal at $memory:literal, $rounds:literal * 100 + $around:literal, $big:literal;)*) => {
        $(#[test] fn $test() { sum($arch, $name, $out, $memory, $rounds, $around, $big); })*
    };
}

sums! {
    x86: "x86" "x86", "eax" at "ebx", 3 * 100 + 3, false;
    x86_64: "x86_64" "x86_64", "rax" at "rbx", 3 * 100 + 3, false;
    arm: "arm" "arm", "r0" at "r1", 3 * 100 + 3, false;
    arm_big_endian: "armeb" "armeb", "r0" at "r1", 3 * 100 + 3, true;
    thumb: "arm" "thumb", "r0" at "r1", 3 * 100 + 3, false;
    aarch64: "aarch64" "aarch64", "x0" at "x1", 3 * 100 + 3, false;
    mips: "mips" "mips", "v0" at "a1", 4 * 100 + 3, true;
    mipsel: "mipsel" "mipsel", "v0" at "a1", 4 * 100 + 3, false;
    mips64: "mips64" "mips64", "v0" at "a1", 4 * 100 + 3, true;
    mips64el: "mips64el" "mips64el", "v0" at "a1", 4 * 100 + 3, false;
    ppc: "ppc" "ppc", "r3" at "r4", 3 * 100 + 4, true;
    riscv64: "riscv64" "riscv64", "a0" at "a1", 3 * 100 + 3, false;
}

/// The trace follows a change of ARM's instruction set, both ways.
#[test]
fn arm_and_thumb_in_one_trace() {
    // add r0,pc,#1; bx r0 — Thumb: movs r2,#7; bx pc; nop — ARM: mov r3,#9
    let bytes =
        hex::decode("01008fe210ff2fe1 0722 c046 7847 c046 0930a0e3".replace(' ', "")).expect("hexadecimal");
    let result = run("arm", &bytes, &[], |job| job.trace = 100);
    assert_eq!(result.outcome, Outcome::Completed);
    assert_eq!((register(&result, "r2"), register(&result, "r3")), (7, 9));
    let words: Vec<&str> = result
        .trace
        .iter()
        .filter_map(|one| one.text.split(' ').next())
        .collect();
    assert_eq!(
        words,
        ["add", "bx", "movs", "mov", "bx", "mov"],
        "{:?}",
        result.trace
    );
    assert_eq!(result.disagreements, 0);
}

#[test]
fn the_instruction_limit_is_exact() {
    for (arch, name, memory) in [
        ("x86_64", "x86_64", "rbx"),
        ("mipsel", "mipsel", "a1"),
        ("aarch64", "aarch64", "x1"),
    ] {
        let result = run(arch, &code(&format!("sum.{name}")), &[(memory, DATA)], |job| {
            job.instructions = 42
        });
        assert_eq!(result.outcome, Outcome::Limit("instructions".into()));
        assert_eq!(result.instructions, 42);
    }
}
