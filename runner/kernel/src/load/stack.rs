//! The first stack of a program: arguments, environment and auxiliary vector. (System V ABI, "Process Initialization".)

use serde::{Deserialize, Serialize};

use crate::abi::Abi;

/// `AT_*` numbers (linux/auxvec.h).
pub(crate) mod at {
    pub(crate) const NULL: u64 = 0;
    pub(crate) const PHDR: u64 = 3;
    pub(crate) const PHENT: u64 = 4;
    pub(crate) const PHNUM: u64 = 5;
    pub(crate) const PAGESZ: u64 = 6;
    pub(crate) const BASE: u64 = 7;
    pub(crate) const FLAGS: u64 = 8;
    pub(crate) const ENTRY: u64 = 9;
    pub(crate) const UID: u64 = 11;
    pub(crate) const EUID: u64 = 12;
    pub(crate) const GID: u64 = 13;
    pub(crate) const EGID: u64 = 14;
    pub(crate) const PLATFORM: u64 = 15;
    pub(crate) const HWCAP: u64 = 16;
    pub(crate) const CLKTCK: u64 = 17;
    pub(crate) const SECURE: u64 = 23;
    pub(crate) const RANDOM: u64 = 25;
    pub(crate) const HWCAP2: u64 = 26;
    pub(crate) const EXECFN: u64 = 31;
    pub(crate) const SYSINFO: u64 = 32;
    pub(crate) const SYSINFO_EHDR: u64 = 33;
}

/// What goes on the stack.
pub(crate) struct First<'a> {
    pub(crate) argv: &'a [Vec<u8>],
    pub(crate) env: &'a [Vec<u8>],
    /// The program's path.
    pub(crate) path: &'a [u8],
    pub(crate) platform: Option<&'a str>,
    pub(crate) random: [u8; 16],
    /// Entries beside PLATFORM, RANDOM, EXECFN and NULL.
    pub(crate) auxv: Vec<(u64, u64)>,
}

/// What `/proc` tells of a stack: a program may write there what it wants to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// From where to where the arguments stand, and where the environment behind them ends.
    pub(crate) arguments: (u64, u64),
    pub(crate) environment: u64,
    /// The auxiliary vector, as it stands there.
    pub(crate) auxv: Vec<u8>,
}

/// A stack that is to be written.
pub(crate) struct Built {
    /// The stack pointer.
    pub(crate) pointer: u64,
    /// The bytes from there on; they end at the stack's top.
    pub(crate) bytes: Vec<u8>,
    pub(crate) placed: Placed,
}

/// A first stack that ends at `top`.
pub(crate) fn build(abi: &Abi, top: u64, first: &First<'_>) -> Option<Built> {
    // Strings, from the highest address down: path, environment, arguments, platform, random bytes.
    let mut strings = Vec::new();
    let mut starts = Vec::new();
    let mut place = |bytes: &[u8], end: bool| {
        starts.push(strings.len() as u64);
        strings.extend_from_slice(bytes);
        if end {
            strings.push(0);
        }
    };
    place(&first.random, false);
    place(first.platform.unwrap_or_default().as_bytes(), true);
    for text in first.argv.iter().chain(first.env) {
        place(text, true);
    }
    place(first.path, true);
    let strings_at = top.checked_sub(strings.len() as u64 + abi.word())? & !15;
    let address = |index: usize| starts.get(index).map(|start| strings_at + start);

    let mut words = vec![first.argv.len() as u64];
    words.extend((0..first.argv.len()).filter_map(|index| address(2 + index)));
    words.push(0);
    words.extend((0..first.env.len()).filter_map(|index| address(2 + first.argv.len() + index)));
    words.push(0);
    let auxv_at = words.len() as u64 * abi.word();
    for (key, value) in &first.auxv {
        words.extend([*key, *value]);
    }
    if first.platform.is_some() {
        words.extend([at::PLATFORM, address(1)?]);
    }
    words.extend([at::RANDOM, address(0)?]);
    words.extend([at::EXECFN, address(2 + first.argv.len() + first.env.len())?]);
    words.extend([at::NULL, 0]);

    let pointer = strings_at.checked_sub(words.len() as u64 * abi.word())? & !15;
    let mut layout = crate::abi::layout::Layout::new(abi);
    for word in words {
        layout = layout.word(word);
    }
    let mut bytes = layout.bytes;
    let environment_at = 2 + first.argv.len();
    let placed = Placed {
        arguments: (address(2)?, address(environment_at)?),
        environment: address(environment_at + first.env.len())?,
        auxv: bytes.get(usize::try_from(auxv_at).ok()?..)?.to_vec(),
    };
    bytes.resize((strings_at - pointer) as usize, 0);
    bytes.extend(strings);
    bytes.resize((top - pointer) as usize, 0);
    Some(Built {
        pointer,
        bytes,
        placed,
    })
}
