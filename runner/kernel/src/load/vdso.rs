//! The shared object of calls that the kernel puts into every program, as an ELF file (System V ABI, chapters 4 and 5; LSB core,
//! "Symbol Versioning").
//!
//! In: an architecture's functions ([`crate::abi::vdso`]) and the kernel's release. Out: a file with one segment that is mapped as
//! it stands, and where in it the functions are that the kernel itself names.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::dynamic::{self, Dyn};
use goblin::elf::header::{EI_CLASS, EI_DATA, EI_VERSION, ELFMAG, ET_DYN, EV_CURRENT, Header};
use goblin::elf::program_header::{PF_R, PF_X, PT_DYNAMIC, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::sym::{STB_GLOBAL, STT_FUNC, Sym};
use hotcell_schema::arch::{ArchProfile, ByteOrder};
use scroll::Pwrite;
use scroll::ctx::{SizeWith, TryIntoCtx};

use crate::abi::Abi;
use crate::abi::layout::Layout;
use crate::abi::vdso::{SIGNAL_RETURN, SYSTEM_CALL, Vdso};

/// The object, and places in it.
pub(crate) struct Object {
    pub(crate) bytes: Vec<u8>,
    /// Where handlers of signals return to.
    pub(crate) signal_return: u64,
    /// What AT_SYSINFO names.
    pub(crate) system_call: Option<u64>,
}

/// `sh_index` of the functions: any section that is defined. There are no sections to be read.
const DEFINED: usize = 1;
/// `vd_flags` of the version that is the object itself.
const BASE: u16 = 1;

/// The object of an architecture; `None` where Linux has none.
pub(crate) fn object(profile: &ArchProfile, abi: &Abi, release: &str) -> Option<Object> {
    let vdso = Vdso::of(profile)?;
    let is_wide = profile.elf.class == 64;
    let ctx = Ctx::new(
        if is_wide {
            Container::Big
        } else {
            Container::Little
        },
        match profile.elf.byte_order {
            ByteOrder::Big => Endian::Big,
            ByteOrder::Little => Endian::Little,
        },
    );
    let mut file = File {
        bytes: Vec::new(),
        ctx,
    };
    let mut names = Names::default();
    let soname = names.add(vdso.soname);

    // Instructions come last, but symbols say where: so they are put one behind the other first.
    let mut text = Vec::new();
    let mut symbols: Vec<(Sym, usize)> = Vec::new();
    let (mut signal_return, mut system_call) = (None, None);
    for routine in vdso.routines(profile) {
        text.resize(text.len().next_multiple_of(16), 0);
        let at = text.len() as u64;
        if routine.call == SIGNAL_RETURN {
            signal_return = Some(at);
        }
        for name in routine.symbols {
            if *name == SYSTEM_CALL {
                system_call = Some(at);
            }
            let symbol = Sym {
                st_name: names.add(name),
                st_info: STB_GLOBAL << 4 | STT_FUNC,
                st_other: 0,
                st_shndx: DEFINED,
                st_value: at,
                st_size: routine.code.len() as u64,
            };
            symbols.push((symbol, routine.version));
        }
        text.extend(routine.code);
    }
    let versions: Vec<(usize, &str)> = vdso
        .versions
        .iter()
        .map(|version| (names.add(version), *version))
        .collect();
    let hashes: Vec<u32> = symbols
        .iter()
        .filter_map(|(symbol, _)| Some(hash(names.get(symbol.st_name)?)))
        .collect();

    let header_size = Header::size(ctx);
    let segment_size = ProgramHeader::size_with(&ctx);
    file.bytes.resize(header_size + 3 * segment_size, 0);
    let hash_at = file.add(&buckets(abi, &hashes, vdso.hash));
    let symbols_at = file.align();
    file.bytes
        .resize(symbols_at + Sym::size_with(&ctx) * (symbols.len() + 1), 0);
    let names_at = file.add(&names.text);
    let mut of_symbols = Layout::new(abi).u16(0);
    for (_, version) in &symbols {
        of_symbols = of_symbols.u16(u16::try_from(*version).ok()?.checked_add(2)?);
    }
    let of_symbols_at = file.add(&of_symbols.bytes);
    let all = std::iter::once((BASE, (soname, vdso.soname))).chain(versions.iter().map(|one| (0, *one)));
    let versions_at = file.add(&definitions(abi, all, versions.len() + 1)?);
    let note = note(abi, release);
    let note_at = file.add(&note);
    let dynamic_at = file.align();
    let entries = [
        (dynamic::DT_SONAME, soname),
        (dynamic::DT_HASH, hash_at),
        (dynamic::DT_STRTAB, names_at),
        (dynamic::DT_SYMTAB, symbols_at),
        (dynamic::DT_STRSZ, names.text.len()),
        (dynamic::DT_SYMENT, Sym::size_with(&ctx)),
        (dynamic::DT_VERDEF, versions_at),
        (dynamic::DT_VERDEFNUM, versions.len() + 1),
        (dynamic::DT_VERSYM, of_symbols_at),
        (dynamic::DT_NULL, 0),
    ];
    let mut end = dynamic_at;
    for (tag, value) in entries {
        let entry = Dyn {
            d_tag: tag,
            d_val: value as u64,
        };
        end = file.put(end, Dyn::size_with(&ctx), entry)?;
    }
    file.bytes.resize(file.bytes.len().next_multiple_of(64), 0);
    let text_at = file.add(&text) as u64;

    let mut at = symbols_at + Sym::size_with(&ctx);
    for (symbol, _) in symbols {
        let symbol = Sym {
            st_value: text_at + symbol.st_value,
            ..symbol
        };
        at = file.put(at, Sym::size_with(&ctx), symbol)?;
    }
    let mut header = Header::new(ctx);
    header.e_ident.get_mut(..4)?.copy_from_slice(ELFMAG);
    *header.e_ident.get_mut(EI_CLASS)? = if is_wide { 2 } else { 1 };
    *header.e_ident.get_mut(EI_DATA)? = if ctx.is_little_endian() { 1 } else { 2 };
    *header.e_ident.get_mut(EI_VERSION)? = EV_CURRENT;
    header.e_type = ET_DYN;
    header.e_machine = profile.elf.machine.first().copied()?;
    header.e_version = u32::from(EV_CURRENT);
    header.e_flags = vdso.flags(profile.elf.byte_order);
    header.e_phoff = header_size as u64;
    header.e_ehsize = u16::try_from(header_size).ok()?;
    header.e_phentsize = u16::try_from(segment_size).ok()?;
    header.e_phnum = 3;
    header.e_shentsize = 0;
    file.bytes.pwrite_with(header, 0, ctx.le).ok()?;
    let length = file.bytes.len();
    let mut at = header_size;
    for (kind, flags, start, size, align) in [
        (PT_LOAD, PF_R | PF_X, 0, length, abi.page),
        (PT_DYNAMIC, PF_R, dynamic_at, end - dynamic_at, abi.word()),
        (PT_NOTE, PF_R, note_at, note.len(), 4),
    ] {
        let segment = ProgramHeader {
            p_type: kind,
            p_flags: flags,
            p_offset: start as u64,
            p_vaddr: start as u64,
            p_paddr: start as u64,
            p_filesz: size as u64,
            p_memsz: size as u64,
            p_align: align,
        };
        at = file.put(at, segment_size, segment)?;
    }
    Some(Object {
        bytes: file.bytes,
        signal_return: text_at + signal_return?,
        system_call: system_call.map(|at| text_at + at),
    })
}

struct File {
    bytes: Vec<u8>,
    ctx: Ctx,
}

impl File {
    /// Where the next part begins.
    fn align(&mut self) -> usize {
        let at = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(at, 0);
        at
    }

    /// Adds a part; where it begins.
    fn add(&mut self, part: &[u8]) -> usize {
        let at = self.align();
        self.bytes.extend_from_slice(part);
        at
    }

    /// Puts a structure of this size into a place; where it ends.
    fn put<T: TryIntoCtx<Ctx, Error = goblin::error::Error>>(
        &mut self,
        at: usize,
        size: usize,
        value: T,
    ) -> Option<usize> {
        let end = at.checked_add(size)?;
        self.bytes.resize(self.bytes.len().max(end), 0);
        value.try_into_ctx(self.bytes.get_mut(at..end)?, self.ctx).ok()?;
        Some(end)
    }
}

/// A string table.
struct Names {
    text: Vec<u8>,
}

impl Default for Names {
    fn default() -> Self {
        Self { text: vec![0] }
    }
}

impl Names {
    fn add(&mut self, name: &str) -> usize {
        let at = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(0);
        at
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        self.text.get(at..)?.split(|byte| *byte == 0).next()
    }
}

/// The System V hash of a name.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(*byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

/// DT_HASH for symbols from the second on. As many buckets as symbols: who reads words of the wrong width finds the number of symbols.
fn buckets(abi: &Abi, hashes: &[u32], width: usize) -> Vec<u8> {
    let count = hashes.len() + 1;
    let (mut first, mut next) = (vec![0u64; count], vec![0u64; count]);
    for (index, hash) in (1u64..).zip(hashes) {
        let bucket = first.get_mut(*hash as usize % count);
        if let (Some(bucket), Some(next)) = (bucket, next.get_mut(index as usize)) {
            *next = std::mem::replace(bucket, index);
        }
    }
    let words = [count as u64; 2].into_iter().chain(first).chain(next);
    let layout = words.fold(Layout::new(abi), |layout, word| {
        if width == 8 {
            layout.u64(word)
        } else {
            layout.low(word)
        }
    });
    layout.bytes
}

/// DT_VERDEF: flags, and the name's place and text, of each version.
fn definitions<'a>(
    abi: &Abi,
    versions: impl Iterator<Item = (u16, (usize, &'a str))>,
    count: usize,
) -> Option<Vec<u8>> {
    /// Bytes of Elf_Verdef, and of it with its Elf_Verdaux.
    const SIZE: u32 = 20;
    const WHOLE: u32 = SIZE + 8;
    let mut layout = Layout::new(abi);
    for (index, (flags, (at, name))) in (1u16..).zip(versions) {
        let next = if usize::from(index) == count { 0 } else { WHOLE };
        layout = layout.u16(1).u16(flags).u16(index).u16(1);
        layout = layout.u32(hash(name.as_bytes())).u32(SIZE).u32(next);
        layout = layout.u32(u32::try_from(at).ok()?).u32(0);
    }
    Some(layout.bytes)
}

/// The note that libraries read the kernel's version from (LINUX_VERSION_CODE of linux/version.h).
fn note(abi: &Abi, release: &str) -> Vec<u8> {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0).min(255));
    let mut next = || numbers.next().unwrap_or(0);
    let version = next() << 16 | next() << 8 | next();
    let mut layout = Layout::new(abi).u32(6).u32(4).u32(0);
    layout.bytes.extend_from_slice(b"Linux\0\0\0");
    layout.u32(version).bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::profiles;

    #[test]
    fn every_architecture_has_an_object_that_fits_into_a_page() {
        for profile in profiles() {
            let abi = Abi::new(&profile);
            let object = object(&profile, &abi, "6.1.0-18-generic").unwrap();
            assert!(object.bytes.len() as u64 <= abi.page, "{}", profile.name);
            assert_eq!(
                object.system_call.is_some(),
                profile.name == "x86",
                "{}",
                profile.name
            );
            let vdso = Vdso::of(&profile).unwrap();
            if vdso.hash == 8 {
                // The reader takes all hash tables for those with words of four bytes.
                continue;
            }
            let read = goblin::elf::Elf::parse(&object.bytes).unwrap();
            assert!(read.is_lib && read.little_endian != abi.big, "{}", profile.name);
            assert!(read.soname.unwrap().starts_with("linux-"));
            let clock = read.dynsyms.iter().find(|symbol| {
                read.dynstrtab
                    .get_at(symbol.st_name)
                    .is_some_and(|name| name.ends_with("_clock_gettime"))
            });
            assert!(clock.unwrap().st_value as usize >= read.header.e_phoff as usize);
            let number = |tag| {
                let entries = &read.dynamic.as_ref().unwrap().dyns;
                entries.iter().find(|entry| entry.d_tag == tag).unwrap().d_val
            };
            assert_eq!(number(dynamic::DT_VERDEFNUM), vdso.versions.len() as u64 + 1);
        }
    }

    #[test]
    fn names_are_hashed_as_loaders_do() {
        assert_eq!(hash(b"printf"), 0x0779_05a6);
        assert_eq!(hash(b"LINUX_2.6"), 0x03ae_75f6);
        assert_eq!(hash(b"LINUX_2.6.39"), 0x075f_cb89);
    }

    #[test]
    fn the_note_holds_the_release() {
        let abi = Abi::new(&crate::tests::profile("x86_64"));
        let words: Vec<u8> = note(&abi, "6.1.0-18-generic").split_off(20);
        assert_eq!(words, [0, 1, 6, 0]);
    }
}
