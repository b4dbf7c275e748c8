//! Error numbers: asm-generic/errno-base.h and errno.h, and mips' own (arch/mips/include/uapi/asm/errno.h).

use hotcell_schema::arch::AbiFamily;
use serde::{Deserialize, Serialize};

/// A guest's error, by its generic number. Not an error of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Errno(pub(crate) u16);

macro_rules! errnos {
    ($($name:ident $generic:literal $mips:literal),* $(,)?) => {
        #[allow(dead_code)]
        impl Errno {
            $(pub(crate) const $name: Self = Self($generic);)*
        }
        /// Name, generic number, number on mips.
        const ERRNOS: &[(&str, u16, u16)] = &[$((stringify!($name), $generic, $mips)),*];
    };
}

errnos! {
    EPERM 1 1, ENOENT 2 2, ESRCH 3 3, EINTR 4 4, EIO 5 5, ENXIO 6 6, E2BIG 7 7, ENOEXEC 8 8, EBADF 9 9, ECHILD 10 10,
    EAGAIN 11 11, ENOMEM 12 12, EACCES 13 13, EFAULT 14 14, ENOTBLK 15 15, EBUSY 16 16, EEXIST 17 17, EXDEV 18 18,
    ENODEV 19 19, ENOTDIR 20 20, EISDIR 21 21, EINVAL 22 22, ENFILE 23 23, EMFILE 24 24, ENOTTY 25 25, ETXTBSY 26 26,
    EFBIG 27 27, ENOSPC 28 28, ESPIPE 29 29, EROFS 30 30, EMLINK 31 31, EPIPE 32 32, EDOM 33 33, ERANGE 34 34,
    EDEADLK 35 45, ENAMETOOLONG 36 78, ENOLCK 37 46, ENOSYS 38 89, ENOTEMPTY 39 93, ELOOP 40 90, ENODATA 61 61,
    EOVERFLOW 75 79, ENOTSOCK 88 95, EDESTADDRREQ 89 96, EMSGSIZE 90 97, EPROTOTYPE 91 98, ENOPROTOOPT 92 99,
    EPROTONOSUPPORT 93 120, ESOCKTNOSUPPORT 94 121, EOPNOTSUPP 95 122, EPFNOSUPPORT 96 123, EAFNOSUPPORT 97 124,
    EADDRINUSE 98 125, EADDRNOTAVAIL 99 126, ENETDOWN 100 127, ENETUNREACH 101 128, ECONNRESET 104 131,
    ENOBUFS 105 132, EISCONN 106 133, ENOTCONN 107 134, ESHUTDOWN 108 143, ETOOMANYREFS 109 144, ETIMEDOUT 110 145, ECONNREFUSED 111 146, EHOSTUNREACH 113 148,
    EALREADY 114 149, EINPROGRESS 115 150, ESTALE 116 151, EDQUOT 122 1133,
}

impl Errno {
    /// The name, for events.
    pub(crate) fn name(self) -> &'static str {
        ERRNOS
            .iter()
            .find(|(_, generic, _)| *generic == self.0)
            .map_or("EUNKNOWN", |(name, ..)| name)
    }

    /// The error that has a number in a family; a number that is none of ours keeps it.
    pub(crate) fn of_number(number: u64, family: AbiFamily) -> Self {
        let mips = matches!(family, AbiFamily::MipsO32 | AbiFamily::MipsN64);
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let found = ERRNOS
            .iter()
            .find(|&&(_, generic, on_mips)| number == if mips { on_mips } else { generic });
        found.map_or(Self(number), |(_, generic, _)| Self(*generic))
    }

    /// The number as the guest's libc knows it.
    pub(crate) fn number(self, family: AbiFamily) -> u64 {
        let mips = matches!(family, AbiFamily::MipsO32 | AbiFamily::MipsN64);
        let found = ERRNOS.iter().find(|(_, generic, _)| *generic == self.0);
        u64::from(found.map_or(
            self.0,
            |&(_, generic, on_mips)| if mips { on_mips } else { generic },
        ))
    }
}
