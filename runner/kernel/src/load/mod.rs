//! Programs: what an ELF file asks for ([`elf`]), the first stack ([`stack`]) and the kernel's own shared object ([`vdso`]).

pub(crate) mod elf;
pub(crate) mod stack;
pub(crate) mod vdso;
