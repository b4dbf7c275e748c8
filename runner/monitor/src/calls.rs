//! Which system calls the kernel part tells, and how it reads their arguments: one row for each.

use syscalls::Sysno;

/// How the kernel part reads an argument (`enum reading` of `record.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reading {
    /// As a number.
    Number = 0,
    /// As text that ends with zero, when the call begins.
    Path = 1,
    /// As a list of texts, when the call begins.
    List = 2,
    /// As a socket address whose length is the next argument, when the call begins.
    Socket = 3,
    /// As the bytes that the call gave, as many as its result says.
    Buffer = 4,
    /// As the bytes that the call took, as many as its result says.
    Written = 5,
    /// As a socket address to whose length the next argument points, when the call has come back.
    SocketOut = 6,
}

/// Tell of the call.
const TELL: u8 = 1;
/// Tell also when it begins.
const EARLY: u8 = 2;
/// It does not come back.
const NEVER: u8 = 4;
/// Its second argument is the length of a mapping.
const LENGTH: u8 = 8;

/// Its result is a descriptor of a file.
const OPENS: u8 = 16;
/// It changes nothing, or only its own process: an emulator that begins does it too. One that opens may write all the same.
const READS: u8 = 32;

/// A system call that is told.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which.
    pub call: Sysno,
    /// How its arguments are read, in order.
    pub reading: [Reading; 6],
    flags: u8,
}

impl Row {
    /// Whether it is told when it begins, too.
    pub fn is_early(self) -> bool {
        self.flags & EARLY != 0
    }

    /// Whether it does not come back.
    pub fn ends(self) -> bool {
        self.flags & NEVER != 0
    }

    /// Whether its result is a descriptor of a file.
    pub fn opens(self) -> bool {
        self.flags & OPENS != 0
    }

    /// Whether it changes nothing, or only its own process. One that opens may write all the same.
    pub fn only_reads(self) -> bool {
        self.flags & READS != 0
    }

    /// The row as the kernel part has it (`struct row`).
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        for (byte, reading) in bytes.iter_mut().zip(self.reading) {
            *byte = reading as u8;
        }
        bytes[6] = self.flags;
        bytes
    }
}

const fn row(call: Sysno, flags: u8, readings: &[Reading]) -> Row {
    let mut reading = [Reading::Number; 6];
    let mut index = 0;
    while index < readings.len() {
        reading[index] = readings[index];
        index += 1;
    }
    Row {
        call,
        reading,
        flags: TELL | flags,
    }
}

use Reading::{Buffer as B, List as L, Number as N, Path as P, Socket as S, SocketOut as O, Written as W};

/// All rows. Calls that one of the host's architectures does not have are left out there.
pub const ROWS: &[Row] = &[
    row(Sysno::openat, EARLY | OPENS | READS, &[N, P]),
    row(Sysno::openat2, EARLY | OPENS, &[N, P]),
    row(Sysno::read, READS, &[N, B]),
    row(Sysno::pread64, READS, &[N, B]),
    row(Sysno::readv, READS, &[]),
    row(Sysno::write, 0, &[N, W]),
    row(Sysno::pwrite64, 0, &[N, W]),
    row(Sysno::writev, 0, &[]),
    row(Sysno::readlinkat, EARLY | READS, &[N, P, B]),
    row(Sysno::unlinkat, EARLY, &[N, P]),
    row(Sysno::renameat, EARLY, &[N, P, N, P]),
    row(Sysno::renameat2, EARLY, &[N, P, N, P]),
    row(Sysno::linkat, EARLY, &[N, P, N, P]),
    row(Sysno::symlinkat, EARLY, &[P, N, P]),
    row(Sysno::mkdirat, EARLY, &[N, P]),
    row(Sysno::mknodat, EARLY, &[N, P]),
    row(Sysno::fchmodat, EARLY, &[N, P]),
    row(Sysno::fchmod, 0, &[]),
    row(Sysno::fchownat, EARLY, &[N, P]),
    row(Sysno::faccessat, EARLY | READS, &[N, P]),
    row(Sysno::faccessat2, EARLY | READS, &[N, P]),
    row(Sysno::newfstatat, EARLY | READS, &[N, P]),
    row(Sysno::statx, EARLY | READS, &[N, P]),
    row(Sysno::truncate, EARLY, &[P]),
    row(Sysno::getdents64, READS, &[]),
    row(Sysno::socket, 0, &[]),
    row(Sysno::connect, EARLY, &[N, S]),
    row(Sysno::bind, EARLY, &[N, S]),
    row(Sysno::listen, 0, &[]),
    row(Sysno::accept, 0, &[N, O]),
    row(Sysno::accept4, 0, &[N, O]),
    row(Sysno::sendto, EARLY, &[N, W, N, N, S]),
    row(Sysno::sendmsg, 0, &[]),
    row(Sysno::recvmsg, 0, &[]),
    row(Sysno::recvfrom, 0, &[N, B, N, N, O]),
    row(Sysno::dup, 0, &[]),
    row(Sysno::dup3, 0, &[]),
    row(Sysno::close, READS, &[]),
    row(Sysno::chdir, EARLY, &[P]),
    row(Sysno::fchdir, 0, &[]),
    row(Sysno::execve, EARLY, &[P, L]),
    row(Sysno::execveat, EARLY, &[N, P, L]),
    row(Sysno::clone, READS, &[]),
    row(Sysno::clone3, READS, &[]),
    row(Sysno::exit, EARLY | NEVER | READS, &[]),
    row(Sysno::exit_group, EARLY | NEVER | READS, &[]),
    row(Sysno::wait4, EARLY, &[]),
    row(Sysno::kill, EARLY, &[]),
    row(Sysno::tgkill, EARLY, &[]),
    row(Sysno::setuid, 0, &[]),
    row(Sysno::setgid, 0, &[]),
    row(Sysno::setreuid, 0, &[]),
    row(Sysno::setregid, 0, &[]),
    row(Sysno::setresuid, 0, &[]),
    row(Sysno::setresgid, 0, &[]),
    row(Sysno::ptrace, EARLY, &[]),
    row(Sysno::mprotect, READS, &[]),
    row(Sysno::mmap, LENGTH | READS, &[]),
    row(Sysno::madvise, READS, &[]),
    row(Sysno::memfd_create, EARLY, &[P]),
    row(Sysno::mount, EARLY, &[P, P, P]),
    row(Sysno::bpf, EARLY, &[]),
    row(Sysno::init_module, EARLY, &[]),
    row(Sysno::finit_module, EARLY, &[]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::open, EARLY | OPENS | READS, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::creat, EARLY | OPENS, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::readlink, EARLY | READS, &[P, B]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::unlink, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::rmdir, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::rename, EARLY, &[P, P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::link, EARLY, &[P, P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::symlink, EARLY, &[P, P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::mkdir, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::mknod, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::chmod, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::chown, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::lchown, EARLY, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::stat, EARLY | READS, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::lstat, EARLY | READS, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::access, EARLY | READS, &[P]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::dup2, 0, &[]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::fork, 0, &[]),
    #[cfg(target_arch = "x86_64")]
    row(Sysno::vfork, 0, &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_two_rows_and_all_fit_into_the_kernels_table() {
        let mut numbers: Vec<i32> = ROWS.iter().map(|row| row.call.id()).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
        assert!(numbers.iter().all(|number| (0..512).contains(number)));
    }
}
