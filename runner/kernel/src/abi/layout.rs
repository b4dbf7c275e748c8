//! Structures as the guest's libc knows them. Sizes and orders are those of the kernel's own headers
//! (`uapi/asm/stat.h`, `statfs.h` of each architecture); tests hold the sizes against the compiler's.

use hotcell_schema::arch::AbiFamily;

use super::Abi;

/// Builds a structure byte by byte in the guest's byte order and word size.
pub(crate) struct Layout<'a> {
    abi: &'a Abi,
    pub(crate) bytes: Vec<u8>,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(abi: &'a Abi) -> Self {
        Self {
            abi,
            bytes: Vec::with_capacity(144),
        }
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.bytes.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.bytes.extend(if self.abi.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(if self.abi.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.bytes.extend(if self.abi.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
        self
    }

    /// The low 32 bits.
    pub(crate) fn low(self, value: u64) -> Self {
        self.u32(value as u32)
    }

    /// A `long`.
    pub(crate) fn word(self, value: u64) -> Self {
        if self.abi.wide {
            self.u64(value)
        } else {
            self.low(value)
        }
    }

    /// Zeroes.
    pub(crate) fn pad(mut self, count: usize) -> Self {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    /// Zeroes up to a multiple.
    pub(crate) fn align(mut self, to: usize) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self
    }

    /// Text in a field of fixed size, ended by a zero.
    pub(crate) fn text(mut self, text: &str, size: usize) -> Self {
        let end = self.bytes.len() + size;
        self.bytes.extend(text.bytes().take(size.saturating_sub(1)));
        self.bytes.resize(end, 0);
        self
    }
}

/// What stat tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) special: u64,
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    /// Access, modification and change time: seconds and nanoseconds since 1970.
    pub(crate) times: [(i64, u32); 3],
}

fn times(mut layout: Layout<'_>, stat: &Stat) -> Vec<u8> {
    for (seconds, nanoseconds) in stat.times {
        layout = layout.word(seconds.cast_unsigned()).word(u64::from(nanoseconds));
    }
    layout.bytes
}

impl<'a> Layout<'a> {
    fn times(mut self, stat: &Stat) -> Self {
        let inner = times(Layout::new(self.abi), stat);
        self.bytes.extend(inner);
        self
    }

    /// Device numbers of 16 bits are padded; a big-endian arm has the padding after the number.
    fn half_device(self, value: u64) -> Self {
        if self.abi.big {
            self.u16(value as u16).u16(0)
        } else {
            self.low(value)
        }
    }

    fn times32(mut self, stat: &Stat) -> Self {
        for (seconds, nanoseconds) in stat.times {
            self = self.low(seconds.cast_unsigned()).u32(nanoseconds);
        }
        self
    }
}

/// `struct stat` of the calls stat, lstat, fstat (`newstat`).
pub(crate) fn stat(abi: &Abi, s: &Stat) -> Vec<u8> {
    let l = Layout::new(abi);
    match abi.family {
        AbiFamily::X86_64 => l
            .u64(s.device)
            .u64(s.inode)
            .u64(u64::from(s.links))
            .u32(s.mode)
            .u32(s.uid)
            .u32(s.gid)
            .u32(0)
            .u64(s.special)
            .u64(s.size)
            .u64(u64::from(s.block_size))
            .u64(s.blocks)
            .times(s)
            .pad(24),
        AbiFamily::Generic64 => l
            .u64(s.device)
            .u64(s.inode)
            .u32(s.mode)
            .u32(s.links)
            .u32(s.uid)
            .u32(s.gid)
            .u64(s.special)
            .u64(0)
            .u64(s.size)
            .u32(s.block_size)
            .u32(0)
            .u64(s.blocks)
            .times(s)
            .pad(8),
        AbiFamily::I386 | AbiFamily::ArmEabi => l
            .half_device(s.device)
            .low(s.inode)
            .u16(s.mode as u16)
            .u16(s.links as u16)
            .u16(s.uid as u16)
            .u16(s.gid as u16)
            .half_device(s.special)
            .low(s.size)
            .u32(s.block_size)
            .low(s.blocks)
            .times(s)
            .pad(8),
        AbiFamily::MipsO32 => l
            .low(s.device)
            .pad(12)
            .low(s.inode)
            .u32(s.mode)
            .u32(s.links)
            .u32(s.uid)
            .u32(s.gid)
            .low(s.special)
            .pad(8)
            .low(s.size)
            .pad(4)
            .times(s)
            .u32(s.block_size)
            .low(s.blocks)
            .pad(56),
        AbiFamily::MipsN64 => return mips_stat64(abi, s),
        AbiFamily::Ppc32 => l
            .low(s.device)
            .low(s.inode)
            .u32(s.mode)
            .u16(s.links as u16)
            .align(4)
            .u32(s.uid)
            .u32(s.gid)
            .low(s.special)
            .low(s.size)
            .u32(s.block_size)
            .low(s.blocks)
            .times(s)
            .pad(8),
        AbiFamily::Ppc64 => l
            .u64(s.device)
            .u64(s.inode)
            .u64(u64::from(s.links))
            .u32(s.mode)
            .u32(s.uid)
            .u32(s.gid)
            .align(8)
            .u64(s.special)
            .u64(s.size)
            .u64(u64::from(s.block_size))
            .u64(s.blocks)
            .times(s)
            .pad(24),
        AbiFamily::S390x => l
            .u64(s.device)
            .u64(s.inode)
            .u64(u64::from(s.links))
            .u32(s.mode)
            .u32(s.uid)
            .u32(s.gid)
            .u32(0)
            .u64(s.special)
            .u64(s.size)
            .times(s)
            .u64(u64::from(s.block_size))
            .u64(s.blocks)
            .pad(24),
    }
    .bytes
}

fn mips_stat64(abi: &Abi, s: &Stat) -> Vec<u8> {
    Layout::new(abi)
        .low(s.device)
        .pad(12)
        .u64(s.inode)
        .u32(s.mode)
        .u32(s.links)
        .u32(s.uid)
        .u32(s.gid)
        .low(s.special)
        .pad(12)
        .u64(s.size)
        .times32(s)
        .u32(s.block_size)
        .pad(4)
        .u64(s.blocks)
        .bytes
}

/// `struct stat64` of the 32-bit ABIs.
pub(crate) fn stat64(abi: &Abi, s: &Stat) -> Vec<u8> {
    let l = Layout::new(abi);
    match abi.family {
        AbiFamily::MipsO32 => mips_stat64(abi, s),
        AbiFamily::Ppc32 => {
            l.u64(s.device)
                .u64(s.inode)
                .u32(s.mode)
                .u32(s.links)
                .u32(s.uid)
                .u32(s.gid)
                .u64(s.special)
                .u16(0)
                .align(8)
                .u64(s.size)
                .u32(s.block_size)
                .align(8)
                .u64(s.blocks)
                .times32(s)
                .pad(8)
                .bytes
        }
        AbiFamily::I386 | AbiFamily::ArmEabi => {
            // i386 aligns 64-bit fields to 4 bytes, arm to 8.
            let to = if abi.family == AbiFamily::I386 { 4 } else { 8 };
            l.u64(s.device)
                .u32(0)
                .low(s.inode)
                .u32(s.mode)
                .u32(s.links)
                .u32(s.uid)
                .u32(s.gid)
                .u64(s.special)
                .u32(0)
                .align(to)
                .u64(s.size)
                .u32(s.block_size)
                .align(to)
                .u64(s.blocks)
                .times32(s)
                .u64(s.inode)
                .bytes
        }
        _ => stat(abi, s),
    }
}

/// `struct statx`, the same everywhere. `mask` is what is told.
pub(crate) fn statx(abi: &Abi, s: &Stat) -> Vec<u8> {
    const BASIC_AND_BIRTH: u32 = 0xfff;
    let stamp = |l: Layout<'_>, (seconds, nanoseconds): (i64, u32)| -> Vec<u8> {
        l.u64(seconds.cast_unsigned()).u32(nanoseconds).u32(0).bytes
    };
    let mut l = Layout::new(abi)
        .u32(BASIC_AND_BIRTH)
        .u32(s.block_size)
        .u64(0)
        .u32(s.links)
        .u32(s.uid)
        .u32(s.gid)
        .u16(s.mode as u16)
        .u16(0)
        .u64(s.inode)
        .u64(s.size)
        .u64(s.blocks)
        .u64(0);
    // Access, birth, change, modification.
    for index in [0, 2, 2, 1] {
        let bytes = stamp(Layout::new(abi), s.times[index]);
        l.bytes.extend(bytes);
    }
    let (special, device) = (split_device(s.special), split_device(s.device));
    l.u32(special.0)
        .u32(special.1)
        .u32(device.0)
        .u32(device.1)
        .pad(112)
        .bytes
}

/// Major and minor number of an encoded device (`new_decode_dev`).
pub(crate) fn split_device(device: u64) -> (u32, u32) {
    let device = device as u32;
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    )
}

/// What statfs tells.
pub(crate) struct StatFs {
    pub(crate) kind: u32,
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) free_files: u64,
}

const NAME_MAX: u64 = 255;

/// `struct statfs`.
pub(crate) fn statfs(abi: &Abi, s: &StatFs) -> Vec<u8> {
    let l = Layout::new(abi);
    let size = u64::from(s.block_size);
    match abi.family {
        AbiFamily::MipsO32 | AbiFamily::MipsN64 => l
            .word(u64::from(s.kind))
            .word(size)
            .word(size)
            .word(s.blocks)
            .word(s.free)
            .word(s.files)
            .word(s.free_files)
            .word(s.free)
            .u64(0)
            .word(NAME_MAX)
            .word(0)
            .pad(5 * abi.word() as usize),
        AbiFamily::S390x => l
            .u32(s.kind)
            .u32(s.block_size)
            .u64(s.blocks)
            .u64(s.free)
            .u64(s.free)
            .u64(s.files)
            .u64(s.free_files)
            .u64(0)
            .u32(NAME_MAX as u32)
            .u32(s.block_size)
            .u32(0)
            .pad(20),
        _ => l
            .word(u64::from(s.kind))
            .word(size)
            .word(s.blocks)
            .word(s.free)
            .word(s.free)
            .word(s.files)
            .word(s.free_files)
            .u64(0)
            .word(NAME_MAX)
            .word(size)
            .word(0)
            .pad(4 * abi.word() as usize),
    }
    .bytes
}

/// `struct statfs64` of the 32-bit ABIs.
pub(crate) fn statfs64(abi: &Abi, s: &StatFs) -> Vec<u8> {
    let l = Layout::new(abi).u32(s.kind).u32(s.block_size);
    match abi.family {
        AbiFamily::MipsO32 => l
            .u32(s.block_size)
            .u32(0)
            .u64(s.blocks)
            .u64(s.free)
            .u64(s.files)
            .u64(s.free_files)
            .u64(s.free)
            .u64(0)
            .u32(NAME_MAX as u32)
            .u32(0)
            .pad(20)
            .align(8),
        AbiFamily::I386 | AbiFamily::ArmEabi | AbiFamily::Ppc32 => {
            let l = l
                .u64(s.blocks)
                .u64(s.free)
                .u64(s.free)
                .u64(s.files)
                .u64(s.free_files)
                .u64(0)
                .u32(NAME_MAX as u32)
                .u32(s.block_size)
                .u32(0)
                .pad(16);
            // i386 and arm pack the structure to 4 bytes.
            if abi.family == AbiFamily::Ppc32 {
                l.align(8)
            } else {
                l
            }
        }
        _ => return statfs(abi, s),
    }
    .bytes
}

/// One entry of getdents64.
pub(crate) fn dirent64(abi: &Abi, inode: u64, next: u64, kind: u8, name: &[u8]) -> Vec<u8> {
    let length = (8 + 8 + 2 + 1 + name.len() + 1).next_multiple_of(8);
    let mut l = Layout::new(abi).u64(inode).u64(next).u16(length as u16).u8(kind);
    l.bytes.extend(name);
    l.bytes.resize(length, 0);
    l.bytes
}

/// One entry of getdents: the kind stands in the last byte.
pub(crate) fn dirent(abi: &Abi, inode: u64, next: u64, kind: u8, name: &[u8]) -> Vec<u8> {
    let word = abi.word() as usize;
    let length = (2 * word + 2 + name.len() + 2).next_multiple_of(word);
    let mut l = Layout::new(abi).word(inode).word(next).u16(length as u16);
    l.bytes.extend(name);
    l.bytes.resize(length, 0);
    if let Some(last) = l.bytes.last_mut() {
        *last = kind;
    }
    l.bytes
}
