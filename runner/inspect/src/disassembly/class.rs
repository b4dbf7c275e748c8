//! Classes of instructions: capstone's groups first, then mnemonics.

use hotcell_schema::elf::InstructionClass as Class;

/// A row: the class, whole mnemonics, and beginnings of mnemonics.
type Row = (Class, &'static [&'static str], &'static [&'static str]);

/// capstone's groups that all architectures share (`cs_group_type`).
const JUMP: u8 = 1;
const CALL: u8 = 2;
const RETURN: u8 = 3;
const INTERRUPT: u8 = 4;
const INTERRUPT_RETURN: u8 = 5;
const PRIVILEGE: u8 = 6;

const X86: &[Row] = &[
    (Class::Nop, &["nop", "endbr64", "endbr32", "pause", "fnop"], &[]),
    (
        Class::Syscall,
        &["syscall", "sysenter", "int", "int3", "into", "ud2"],
        &[],
    ),
    (
        Class::Return,
        &["ret", "retf", "retn"],
        &["iret", "sysret", "sysexit"],
    ),
    (
        Class::LoadStore,
        &["push", "pop"],
        &["pusha", "popa", "pushf", "popf", "movs", "lods", "stos", "rep"],
    ),
    (
        Class::Arithmetic,
        &[
            "add", "adc", "sub", "sbb", "inc", "dec", "neg", "cmp", "mul", "imul", "div", "idiv", "xadd",
            "lea",
        ],
        &[
            "cmpxchg", "scas", "cmps", "adcx", "adox", "padd", "psub", "pmul", "pcmp", "pmin", "pmax",
            "fadd", "fsub", "fmul", "fdiv", "ucomis", "comis",
        ],
    ),
    (
        Class::Logic,
        &[
            "and", "or", "xor", "not", "test", "shl", "shr", "sar", "sal", "rol", "ror", "rcl", "rcr", "andn",
        ],
        &[
            "bt", "bs", "shld", "shrd", "pxor", "pand", "por", "xorp", "andp", "orp", "lzcnt", "tzcnt",
            "popcnt",
        ],
    ),
    (
        Class::Move,
        &["xchg", "cdq", "cqo", "cdqe", "cwde", "cbw", "cwd"],
        &[
            "mov",
            "cmov",
            "set",
            "punpck",
            "pshuf",
            "pinsr",
            "pextr",
            "pmov",
            "broadcast",
            "fld",
            "fst",
            "fxch",
            "cvt",
        ],
    ),
];

const ARM: &[Row] = &[
    (
        Class::Nop,
        &["nop", "nop.w", "hint", "yield", "bti", "it"],
        &["it"],
    ),
    (
        Class::Syscall,
        &[],
        &["svc", "swi", "bkpt", "brk", "udf", "hvc", "smc"],
    ),
    (Class::Return, &["ret", "retaa", "retab", "eret"], &[]),
    (
        Class::Logic,
        &[],
        &[
            "and", "orr", "orn", "eor", "eon", "bic", "mvn", "lsl", "lsr", "asr", "ror", "rrx", "tst", "teq",
            "ubfx", "sbfx", "bfi", "bfc", "ubfm", "sbfm", "bfxil", "ubfiz", "sbfiz", "clz", "rbit", "rev",
        ],
    ),
    (
        Class::LoadStore,
        &[],
        &[
            "ld", "st", "push", "pop", "vld", "vst", "vpush", "vpop", "swp", "pld", "prfm", "cas",
        ],
    ),
    (
        Class::Arithmetic,
        &[],
        &[
            "add", "adc", "sub", "sbc", "rsb", "rsc", "mul", "mla", "mls", "cmp", "cmn", "ccmp", "ccmn",
            "udiv", "sdiv", "madd", "msub", "neg", "smul", "umul", "smla", "umla", "umaal", "smadd", "umadd",
            "smsub", "umsub", "qadd", "qsub", "uadd", "usub", "sadd", "ssub",
        ],
    ),
    (
        Class::Move,
        &[],
        &[
            "mov", "csel", "cset", "csinc", "csinv", "csneg", "cinc", "adr", "uxt", "sxt", "fmov", "vmov",
            "mrs",
        ],
    ),
    (Class::Call, &["bl", "blx", "blr"], &["blx", "blr"]),
    (
        Class::Jump,
        &["b", "b.w", "br", "bx", "bxj"],
        &["b.", "cb", "tb", "bx"],
    ),
];

const MIPS: &[Row] = &[
    (Class::Nop, &["nop", "ssnop", "ehb"], &[]),
    (Class::Syscall, &["syscall", "break", "sdbbp"], &[]),
    (
        Class::Call,
        &["jal", "jalr", "bal", "jalx", "balc", "jialc"],
        &["bgezal", "bltzal", "jal"],
    ),
    (
        Class::Jump,
        &["j", "jr", "b", "jic", "bc", "jrc"],
        &["beq", "bne", "bgt", "bge", "blt", "ble", "bc1"],
    ),
    (
        Class::Logic,
        &[],
        &[
            "and", "or", "xor", "nor", "not", "sll", "srl", "sra", "rot", "dsll", "dsrl", "dsra", "ext",
            "ins", "dext", "dins", "clz", "clo",
        ],
    ),
    (
        Class::Move,
        &["li", "lui", "move"],
        &[
            "mfhi", "mflo", "mthi", "mtlo", "mov", "se", "mfc1", "mtc1", "cfc1", "ctc1",
        ],
    ),
    (
        Class::LoadStore,
        &["ll", "sc", "lld", "scd"],
        &["lb", "lh", "lw", "ld", "sb", "sh", "sw", "sd", "pref", "cache"],
    ),
    (
        Class::Arithmetic,
        &[],
        &[
            "add", "sub", "mul", "div", "slt", "madd", "msub", "neg", "dadd", "dsub", "dmul", "ddiv",
            "daddi", "mod", "teq", "tne", "tge", "tlt",
        ],
    ),
];

const PPC: &[Row] = &[
    (Class::Nop, &["nop"], &[]),
    (Class::Syscall, &["sc"], &["trap", "tw", "td"]),
    (Class::Return, &["blr", "rfi", "rfid", "rfscv"], &[]),
    (Class::Call, &["bl", "bla", "bctrl", "blrl"], &["bcl"]),
    (
        Class::Jump,
        &["b", "ba", "bctr"],
        &[
            "bc", "beq", "bne", "bgt", "bge", "blt", "ble", "bdnz", "bdz", "bns", "bso",
        ],
    ),
    (
        Class::Logic,
        &[],
        &[
            "and", "or", "xor", "nor", "nand", "not", "eqv", "slw", "srw", "sraw", "sld", "srd", "srad",
            "rlw", "rld", "rot", "cntlz", "clr", "sl", "sr", "ext", "cr",
        ],
    ),
    (
        Class::Arithmetic,
        &[],
        &["add", "sub", "mul", "div", "cmp", "neg"],
    ),
    (
        Class::Move,
        &["li", "lis", "mr", "la"],
        &["mf", "mt", "mcr", "isel"],
    ),
    (
        Class::LoadStore,
        &[],
        &["lb", "lh", "lw", "ld", "lm", "lf", "lv", "lx", "st", "dcb", "icb"],
    ),
];

const RISCV: &[Row] = &[
    (Class::Nop, &["nop"], &["fence"]),
    (Class::Syscall, &["ecall", "ebreak"], &[]),
    (Class::Return, &["ret"], &[]),
    (Class::Call, &["jal", "jalr", "call"], &[]),
    (
        Class::Jump,
        &["j", "jr"],
        &["beq", "bne", "blt", "bge", "bgt", "ble"],
    ),
    (
        Class::Privileged,
        &["mret", "sret", "uret", "wfi"],
        &["csr", "sfence"],
    ),
    (
        Class::Move,
        &["li", "lui", "mv", "auipc"],
        &["fmv", "sext", "zext"],
    ),
    (
        Class::Logic,
        &[],
        &["and", "or", "xor", "not", "sll", "srl", "sra"],
    ),
    (
        Class::LoadStore,
        &[
            "lb", "lbu", "lh", "lhu", "lw", "lwu", "ld", "sb", "sh", "sw", "sd", "lwsp", "ldsp", "swsp",
            "sdsp",
        ],
        &["fl", "fs", "lr.", "sc.", "amo"],
    ),
    (
        Class::Arithmetic,
        &[],
        &[
            "add", "sub", "mul", "div", "rem", "slt", "neg", "seqz", "snez", "sltz", "sgtz",
        ],
    ),
];

/// The class of an instruction. `arch` is capstone's name in lower case.
pub(crate) fn of(arch: &str, mnemonic: &str, operands: &str, groups: &[u8]) -> Class {
    let mnemonic = mnemonic
        .strip_prefix("c.")
        .filter(|_| arch == "riscv")
        .unwrap_or(mnemonic);
    let rows = match arch {
        "x86" => X86,
        "arm" | "arm64" => ARM,
        "mips" => MIPS,
        "ppc" => PPC,
        "riscv" => RISCV,
        _ => &[],
    };
    if returns(arch, mnemonic, operands) {
        return Class::Return;
    }
    // AVX: the same names with a `v` before them.
    let short = mnemonic.strip_prefix('v').filter(|_| arch == "x86");
    let by_name = by_name(rows, mnemonic).or_else(|| by_name(rows, short?));
    // A system call is one whatever groups say; so is what is named as a call (capstone groups mips `bal` as a jump).
    if matches!(by_name, Some(Class::Syscall | Class::Nop)) {
        return by_name.unwrap_or(Class::Other);
    }
    let has = |group: u8| groups.contains(&group);
    if has(RETURN) || has(INTERRUPT_RETURN) {
        Class::Return
    } else if has(CALL) || by_name == Some(Class::Call) {
        Class::Call
    } else if has(INTERRUPT) {
        Class::Syscall
    } else if has(JUMP) {
        Class::Jump
    } else if has(PRIVILEGE) {
        Class::Privileged
    } else {
        match by_name {
            // x86 moves and tests with memory are loads and stores.
            Some(Class::Move) if arch == "x86" && operands.contains('[') => Class::LoadStore,
            Some(class) => class,
            None => Class::Other,
        }
    }
}

/// Returns that are written as jumps.
fn returns(arch: &str, mnemonic: &str, operands: &str) -> bool {
    match arch {
        "arm" => {
            (mnemonic.starts_with("bx") && operands == "lr")
                || (mnemonic.starts_with("pop") && operands.contains("pc"))
                || (mnemonic.starts_with("ldm") && operands.contains("pc}"))
                || (mnemonic.starts_with("mov") && operands == "pc, lr")
        }
        "mips" => matches!(mnemonic, "jr" | "jrc") && operands == "$ra",
        "ppc" => mnemonic.starts_with('b') && mnemonic.trim_end_matches(['+', '-']).ends_with("lr"),
        "riscv" => mnemonic == "jr" && operands == "ra",
        _ => false,
    }
}

fn by_name(rows: &[Row], mnemonic: &str) -> Option<Class> {
    let whole = rows.iter().find(|(_, whole, _)| whole.contains(&mnemonic));
    let begins = || {
        rows.iter()
            .find(|(_, _, begins)| begins.iter().any(|begin| mnemonic.starts_with(begin)))
    };
    whole.or_else(begins).map(|(class, _, _)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics_have_their_class() {
        let cases = [
            ("x86", "mov", "eax, dword ptr [rdi]", Class::LoadStore),
            ("x86", "mov", "eax, ebx", Class::Move),
            ("x86", "xor", "eax, eax", Class::Logic),
            ("x86", "syscall", "", Class::Syscall),
            ("x86", "endbr64", "", Class::Nop),
            ("arm", "bx", "lr", Class::Return),
            ("arm", "bic", "r0, r0, #1", Class::Logic),
            ("arm", "ldreq", "r0, [r1]", Class::LoadStore),
            ("arm", "svcne", "#0", Class::Syscall),
            ("arm64", "stp", "x29, x30, [sp, #-16]!", Class::LoadStore),
            ("mips", "jr", "$ra", Class::Return),
            ("mips", "bal", "0x10", Class::Call),
            ("mips", "addiu", "$sp, $sp, -32", Class::Arithmetic),
            ("mips", "lui", "$gp, 2", Class::Move),
            ("ppc", "blr", "", Class::Return),
            ("ppc", "beqlr", "", Class::Return),
            ("ppc", "sc", "", Class::Syscall),
            ("ppc", "stwu", "1, -16(1)", Class::LoadStore),
            ("riscv", "c.addi", "sp, -16", Class::Arithmetic),
            ("riscv", "c.jr", "ra", Class::Return),
            ("riscv", "ecall", "", Class::Syscall),
            ("sysz", "lgr", "", Class::Other),
        ];
        for (arch, mnemonic, operands, class) in cases {
            assert_eq!(
                of(arch, mnemonic, operands, &[]),
                class,
                "{arch} {mnemonic} {operands}"
            );
        }
        assert_eq!(of("x86", "call", "0x1000", &[CALL, 7]), Class::Call);
        assert_eq!(of("x86", "hlt", "", &[PRIVILEGE]), Class::Privileged);
    }
}
