//! Sizes of structures against those of the kernel's headers (`uapi/asm/stat.h`, `statfs.h`, `asm-generic`).

use super::profile;
use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::abi::flags;
use crate::abi::layout::{self, Stat, StatFs};
use crate::abi::signal::Sig;

/// Profile, sizes of stat, stat64, statfs, statfs64; offset of st_size in stat64 (stat on 64 bits).
const SIZES: &[(&str, usize, usize, usize, usize, usize)] = &[
    ("x86_64", 144, 144, 120, 120, 48),
    ("x86", 64, 96, 64, 84, 44),
    ("arm", 64, 104, 64, 84, 48),
    ("armeb", 64, 104, 64, 84, 48),
    ("aarch64", 128, 128, 120, 120, 48),
    ("riscv64", 128, 128, 120, 120, 48),
    ("mips", 144, 104, 68, 96, 56),
    ("mipsel", 144, 104, 68, 96, 56),
    ("mips64", 104, 104, 128, 128, 56),
    ("mips64el", 104, 104, 128, 128, 56),
    ("ppc", 72, 104, 64, 88, 48),
    ("ppc64", 144, 144, 120, 120, 48),
    ("ppc64le", 144, 144, 120, 120, 48),
    ("s390x", 144, 144, 88, 88, 48),
];

const STAT: Stat = Stat {
    device: 0x801,
    inode: 77,
    mode: 0o100_644,
    links: 1,
    uid: 0,
    gid: 0,
    special: 0,
    size: 0x1234,
    block_size: 4096,
    blocks: 8,
    times: [(1, 2), (3, 4), (5, 6)],
};

#[test]
fn structures_have_the_sizes_of_the_headers() {
    let system = StatFs {
        kind: 0xef53,
        block_size: 4096,
        blocks: 1,
        free: 1,
        files: 1,
        free_files: 1,
    };
    for (name, stat, stat64, statfs, statfs64, size_at) in SIZES {
        let abi = Abi::new(&profile(name));
        assert_eq!(layout::stat(&abi, &STAT).len(), *stat, "{name} stat");
        let bytes = layout::stat64(&abi, &STAT);
        assert_eq!(bytes.len(), *stat64, "{name} stat64");
        let size: [u8; 8] = bytes[*size_at..size_at + 8].try_into().unwrap();
        assert_eq!(abi.get_u64(size), 0x1234, "{name} st_size");
        assert_eq!(layout::statfs(&abi, &system).len(), *statfs, "{name} statfs");
        assert_eq!(
            layout::statfs64(&abi, &system).len(),
            *statfs64,
            "{name} statfs64"
        );
        assert_eq!(layout::statx(&abi, &STAT).len(), 256, "{name} statx");
        assert_eq!(
            layout::dirent64(&abi, 1, 1, 4, b"abc").len(),
            24,
            "{name} dirent64"
        );
        assert_eq!(
            layout::dirent(&abi, 1, 1, 4, b"abc").len() % abi.word() as usize,
            0,
            "{name} dirent"
        );
    }
}

#[test]
fn open_flags_come_back_as_they_went() {
    for (name, ..) in SIZES {
        let abi = Abi::new(&profile(name));
        for bit in [
            0o100,
            0o1000,
            0o2000,
            0o4000,
            0o40000,
            0o100_000,
            0o200_000,
            0o400_000,
            0o2_000_000,
        ] {
            assert_eq!(
                flags::open_in(&abi, flags::open_out(&abi, bit | 2)),
                bit | 2,
                "{name} {bit:o}"
            );
        }
    }
    // Values of arch/*/include/uapi/asm/fcntl.h.
    let value = |name: &str| flags::open_out(&Abi::new(&profile(name)), flags::open::DIRECTORY);
    assert_eq!(
        ["x86_64", "aarch64", "arm", "mips", "ppc64le", "riscv64"].map(value),
        [0o200_000, 0o40000, 0o40000, 0o200_000, 0o40000, 0o200_000]
    );
}

#[test]
fn errors_and_signals_have_the_numbers_of_their_architecture() {
    let numbers = |name: &str| {
        let family = profile(name).abi.family;
        [
            Errno::ENOSYS.number(family),
            Errno::ELOOP.number(family),
            Sig::CHLD.number(family),
            Sig(10).number(family),
        ]
    };
    assert_eq!(numbers("x86_64"), [38, 40, 17, 10]);
    assert_eq!(numbers("mips"), [89, 90, 18, 16]);
    for name in ["x86_64", "mips64"] {
        let family = profile(name).abi.family;
        for number in (1..32).filter(|number| *number != 7 || name == "x86_64") {
            let signal = Sig::from_number(number, family).unwrap();
            assert_eq!(signal.number(family), number, "{name}");
        }
    }
}
