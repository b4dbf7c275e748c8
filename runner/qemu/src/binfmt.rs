//! What tells the kernel to run programs of the guest's architecture by the emulator (Documentation/admin-guide/binfmt-misc.rst).

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use hotcell_schema::arch::{ByteOrder, ElfIdentity};

/// What tells the emulator from all other programs: it stands where an ELF file's identification has padding (elf(5),
/// `EI_PAD`), in a copy that nobody can read.
pub(crate) type Secret = [u8; 8];
/// Where the secret stands.
const SECRET_AT: usize = 8;

/// Machines whose programs this host's kernel would run by itself, on its own processor; the emulator's is the first (elf.h,
/// `elf_check_arch` and `compat_elf_check_arch` of arch/x86 and arch/arm64).
#[cfg(target_arch = "x86_64")]
const HOSTS: &[u16] = &[62, 3, 6];
#[cfg(target_arch = "aarch64")]
const HOSTS: &[u16] = &[183, 40];

/// The beginning of a file, and which of its bits count.
type Pattern = ([u8; 20], [u8; 20]);

/// The lines to be registered for an architecture. F: the emulator is opened now, by its path here. P: it is told the
/// program's own argument 0. What the host could run itself goes to the emulator too, which refuses what is not its own.
pub(crate) fn lines(elf: &ElfIdentity, emulator: &Path, secret: Secret) -> Vec<String> {
    let by_itself = |machine: u16| elf.byte_order == ByteOrder::Little && HOSTS.contains(&machine);
    let own = elf.machine.iter().filter(|machine| !by_itself(**machine));
    let own = own.map(|machine| pattern((elf.class, elf.byte_order, *machine)));
    let hosts = HOSTS.iter().enumerate().flat_map(|(place, machine)| {
        let pattern = of_any_class(pattern((64, ByteOrder::Little, *machine)));
        match place {
            0 => but_for(pattern, secret),
            _ => vec![pattern],
        }
    });
    own.chain(hosts)
        .enumerate()
        .map(|(index, (magic, mask))| {
            let (magic, mask) = (escaped(&magic), escaped(&mask));
            format!(":hotcell{index}:M::{magic}:{mask}:{}:PF", emulator.display())
        })
        .collect()
}

/// The beginning of an ELF file (elf(5)): class, byte order, an executable or a shared object, the machine.
fn pattern((class, order, machine): (u8, ByteOrder, u16)) -> Pattern {
    let mut magic = [0; 20];
    let mut mask = [0; 20];
    let order_byte = if order == ByteOrder::Little { 1 } else { 2 };
    magic[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class / 32, order_byte]);
    mask[..6].fill(0xff);
    // ET_EXEC is 2, ET_DYN 3.
    for (at, value, bits) in [(16, 2, 0xfffe), (18, machine, 0xffff_u16)] {
        let bytes = |half: u16| match order {
            ByteOrder::Little => half.to_le_bytes(),
            ByteOrder::Big => half.to_be_bytes(),
        };
        magic[at..at + 2].copy_from_slice(&bytes(value));
        mask[at..at + 2].copy_from_slice(&bytes(bits));
    }
    (magic, mask)
}

/// The same of any class and byte order: the kernel does not ask for them (`load_elf_binary`).
fn of_any_class((magic, mut mask): Pattern) -> Pattern {
    mask[4..6].fill(0);
    (magic, mask)
}

/// All files of a pattern but those with the secret: each of the others differs from it in one bit at least.
fn but_for((magic, mask): Pattern, secret: Secret) -> Vec<Pattern> {
    let bits = (0..secret.len()).flat_map(|byte| (0..8).map(move |bit| (byte, 1_u8 << bit)));
    bits.map(|(byte, bit)| {
        let (mut magic, mut mask) = (magic, mask);
        magic[SECRET_AT + byte] = !secret[byte] & bit;
        mask[SECRET_AT + byte] = bit;
        (magic, mask)
    })
    .collect()
}

/// Where builds of QEMU look for each file of a guest first (`--interp-prefix`): Debian's, and QEMU's own.
const PREFIXES: [&str; 2] = ["/etc/qemu-binfmt/", "/usr/gnemul/qemu-"];

/// The emulator (`qemu-<target>`) with the secret in it, and with `/` for the folder in which it would look for each file before it
/// looks where the guest says: the root is the guest's own, and those looks would be told as the guest's.
pub(crate) fn marked(mut emulator: Vec<u8>, user: &str, secret: Secret) -> Vec<u8> {
    if let Some(place) = emulator.get_mut(SECRET_AT..SECRET_AT + secret.len()) {
        place.copy_from_slice(&secret);
    }
    let target = user.strip_prefix("qemu-").unwrap_or(user);
    for prefix in PREFIXES {
        let folder = format!("\0{prefix}{target}\0");
        if let Some(at) = memchr::memmem::find(&emulator, folder.as_bytes())
            && let Some(end) = emulator.get_mut(at + 2)
        {
            *end = 0;
        }
    }
    emulator
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\x{byte:02x}");
        text
    })
}

/// Registers lines in a mounted `binfmt_misc`.
pub(crate) fn register(mounted: &Path, lines: &[String]) -> io::Result<()> {
    for line in lines {
        OpenOptions::new()
            .write(true)
            .open(mounted.join("register"))?
            .write_all(line.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the kernel would take a file for one of these.
    fn is_taken(patterns: &[Pattern], file: &[u8; 20]) -> bool {
        patterns.iter().any(|(magic, mask)| {
            let mut bytes = magic.iter().zip(mask).zip(file);
            bytes.all(|((magic, mask), byte)| magic & mask == byte & mask)
        })
    }

    #[test]
    fn the_pattern_is_that_of_qemus_own_script() {
        let (magic, mask) = pattern((32, ByteOrder::Big, 8));
        assert_eq!(magic, *b"\x7fELF\x01\x02\0\0\0\0\0\0\0\0\0\0\x00\x02\x00\x08");
        assert_eq!(
            mask,
            *b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\xff\xfe\xff\xff"
        );
    }

    #[test]
    fn what_the_kernel_would_run_itself_is_taken_whatever_its_class() {
        let (magic, mask) = of_any_class(pattern((64, ByteOrder::Little, HOSTS[0])));
        for class in 0..4 {
            let mut file = magic;
            file[4] = class;
            file[5] = 3 - class;
            assert!(is_taken(&[(magic, mask)], &file));
        }
    }

    #[test]
    fn the_emulator_looks_where_the_guest_says() {
        let emulator = b"\x7fELF............ a\0/etc/qemu-binfmt/arm\0/etc/qemu-binfmt/armeb\0".to_vec();
        let marked = marked(emulator.clone(), "qemu-arm", [7; 8]);
        let mut wanted = emulator;
        wanted[8..16].fill(7);
        wanted["\x7fELF............ a\0/".len()] = 0;
        assert_eq!(marked, wanted);
    }

    #[test]
    fn everything_is_taken_but_the_emulator() {
        let secret = *b"\x00\xffsecret";
        let own = pattern((64, ByteOrder::Little, 62));
        let patterns = but_for(own, secret);
        let mut file = own.0;
        assert!(is_taken(&patterns, &file));
        file[8..16].copy_from_slice(&secret);
        assert!(!is_taken(&patterns, &file));
        for at in 8..16 {
            let mut other = file;
            other[at] ^= 0x10;
            assert!(is_taken(&patterns, &other));
        }
    }
}
