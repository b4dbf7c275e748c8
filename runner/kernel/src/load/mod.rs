//! Programs: what an ELF file asks for ([`elf`]) and the first stack ([`stack`]).

pub(crate) mod elf;
pub(crate) mod stack;
