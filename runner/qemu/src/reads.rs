//! What the calls of a traced task name: read from its memory as the monitor's kernel part reads it (`monitor.bpf.c`).

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use hotcell_monitor::calls::{Reading, Row};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Sizes of `record.h`: pieces of memory of one call, bytes of a text, of what is read and written, texts of a list, bytes of
/// an address (`struct sockaddr_storage`).
pub(crate) const TEXTS: usize = 3;
const TEXT: usize = 512;
const DATA: usize = 256;
const LISTED: u64 = 24;
const ADDRESS: usize = 128;
/// The least page of memory.
const PAGE: u64 = 4096;
/// Memory that an argument names: which, whether there was more, bytes.
pub(crate) type Piece = (u8, bool, Vec<u8>);

/// Reads memory of a task; whether all of it is there.
pub(crate) fn read(task: u32, address: u64, bytes: &mut [u8]) -> bool {
    let Ok(base) = usize::try_from(address) else {
        return false;
    };
    let remote = [RemoteIoVec {
        base,
        len: bytes.len(),
    }];
    let length = bytes.len();
    let told = process_vm_readv(
        Pid::from_raw(task.cast_signed()),
        &mut [IoSliceMut::new(bytes)],
        &remote,
    );
    told == Ok(length)
}

pub(crate) fn number_at(task: u32, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(task, address, &mut bytes).then(|| u64::from_ne_bytes(bytes))
}

/// A text with its zero, and whether there was more of it. The page behind its end need not be there.
pub(crate) fn text(task: u32, address: u64) -> Option<(bool, Vec<u8>)> {
    let mut text: Vec<u8> = Vec::new();
    while text.len() < TEXT {
        let at = address.checked_add(text.len() as u64)?;
        let here = usize::try_from(PAGE - at % PAGE)
            .unwrap_or(TEXT)
            .min(TEXT - text.len());
        let mut bytes = vec![0; here];
        if !read(task, at, &mut bytes) {
            return None;
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end + 1);
            text.extend(bytes);
            return Some((text.len() == TEXT, text));
        }
        text.extend(bytes);
    }
    if let Some(last) = text.last_mut() {
        *last = 0;
    }
    Some((true, text))
}

fn list(task: u32, address: u64) -> (bool, Vec<u8>) {
    let mut all = Vec::new();
    for index in 0..LISTED {
        let one = address
            .checked_add(index * 8)
            .and_then(|at| number_at(task, at))
            .filter(|one| *one != 0)
            .and_then(|one| text(task, one));
        let Some((_, text)) = one else { break };
        if all.len() > TEXTS * TEXT {
            break;
        }
        all.extend(text);
        if index + 1 == LISTED || all.len() > 2 * TEXT {
            return (true, all);
        }
    }
    (false, all)
}

fn bytes_at(task: u32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    read(task, address, &mut bytes).then_some(bytes)
}

fn with_places(row: Row, arguments: &[u64; 6]) -> impl Iterator<Item = (u8, Reading, u64, u64)> + use<> {
    let arguments = *arguments;
    let next = move |index: usize| arguments.get(index + 1).copied().unwrap_or(0);
    let all = row.reading.into_iter().zip(arguments).enumerate();
    all.map(move |(index, (reading, argument))| (index as u8, reading, argument, next(index)))
}

/// What is there when the call begins.
pub(crate) fn early(task: u32, row: Row, arguments: &[u64; 6]) -> Vec<Piece> {
    let pieces = with_places(row, arguments).filter_map(|(index, reading, argument, next)| match reading {
        Reading::Path => text(task, argument).map(|(cut, text)| (index, cut, text)),
        Reading::List => {
            let (cut, texts) = list(task, argument);
            Some((index, cut, texts))
        }
        Reading::Socket => {
            let length = (next as u32 as usize).min(ADDRESS);
            bytes_at(task, argument, length).map(|bytes| (index, false, bytes))
        }
        _ => None,
    });
    pieces.take(TEXTS).collect()
}

/// What is there when it has come back.
pub(crate) fn late(task: u32, row: Row, arguments: &[u64; 6], result: i64, pieces: &mut Vec<Piece>) {
    for (index, reading, argument, next) in with_places(row, arguments) {
        let length = match reading {
            Reading::Buffer | Reading::Written if result > 0 => {
                usize::try_from(result).unwrap_or(DATA).min(DATA)
            }
            Reading::SocketOut if result >= 0 && argument != 0 => {
                let mut length = [0; 4];
                read(task, next, &mut length);
                (u32::from_ne_bytes(length) as usize).min(ADDRESS)
            }
            _ => continue,
        };
        if pieces.len() < TEXTS
            && let Some(bytes) = bytes_at(task, argument, length)
        {
            pieces.push((index, false, bytes));
        }
    }
}

/// Flags of a call that opens.
fn flags(row: Row, arguments: &[u64; 6]) -> u64 {
    match (row.call, row.reading[0]) {
        #[cfg(target_arch = "x86_64")]
        (syscalls::Sysno::creat, _) => libc::O_CREAT as u64 | libc::O_WRONLY as u64,
        (syscalls::Sysno::openat2, _) => libc::O_CREAT as u64,
        (_, Reading::Path) => arguments[1],
        _ => arguments[2],
    }
}

pub(crate) fn writes(row: Row, arguments: &[u64; 6]) -> bool {
    let any = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    flags(row, arguments) & any as u64 != 0
}

/// Whether it may make the file that it opens.
pub(crate) fn makes(row: Row, arguments: &[u64; 6]) -> bool {
    flags(row, arguments) & libc::O_CREAT as u64 != 0
}

/// Whether the file that a call names is not there: by the task's own folders, in the root that is this process's too.
pub(crate) fn is_missing(task: u32, row: Row, arguments: &[u64; 6]) -> bool {
    let (folder, path) = match row.reading[0] {
        Reading::Path => (libc::AT_FDCWD, arguments[0]),
        _ => ((arguments[0] as u32).cast_signed(), arguments[1]),
    };
    let Some((false, path)) = text(task, path) else {
        return false;
    };
    let path = path.strip_suffix(&[0]).unwrap_or(&path);
    let place = match folder {
        libc::AT_FDCWD => PathBuf::from(format!("/proc/{task}/cwd")),
        folder => PathBuf::from(format!("/proc/{task}/fd/{folder}")),
    };
    let path = match path.strip_prefix(b"/proc/self/") {
        Some(own) => PathBuf::from(format!("/proc/{task}")).join(OsStr::from_bytes(own)),
        None => place.join(OsStr::from_bytes(path)),
    };
    matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}
