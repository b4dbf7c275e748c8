//! Calls that another Linux carried out, told as the emulated one tells its own: for engines whose guests run on the host's.

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::{ArgValue, FileOp, NetworkOp, Support, Syscall};
use hotcell_schema::guest::{text, text_up_to};

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::call::{SHOWN, is_at_cwd};
use crate::net::spoken::Spoken;
use crate::table::{self, Effect, Kind, Shown};
use crate::view::{Memory, View};

/// Calls of one architecture's Linux.
#[derive(Debug, Clone)]
pub struct Calls {
    abi: Abi,
}

/// Memory that a call names, as somebody read it at the time.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Which argument, from 0.
    pub argument: usize,
    /// The bytes; of a text or a list of texts with the zeros that end each.
    pub bytes: &'a [u8],
}

/// A call and what is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The event of the call itself.
    pub call: Syscall,
    /// What it was about.
    pub about: About,
    /// Its paths, in order, each with the directory that it counts from.
    pub paths: Vec<(Base, String)>,
    /// Permission bits that it names.
    pub mode: Option<u32>,
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Nothing that is told beside it.
    Nothing,
    /// Files.
    File(FileOp),
    /// A socket.
    Network(NetworkOp),
}

/// Where a path counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The working directory.
    WorkingDirectory,
    /// What a descriptor was opened for.
    Descriptor(i32),
}

/// Nothing is known but what was read at the time.
struct Nowhere;

impl Memory for Nowhere {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }
}

impl Calls {
    /// Those of a profile's architecture.
    pub fn new(profile: &ArchProfile) -> Self {
        Self {
            abi: Abi::new(profile),
        }
    }

    /// Tells a call: its number, its arguments, what was read of memory, and its result as the kernel gives it (`None`: it has not
    /// come back).
    pub fn tell(&self, number: u64, words: &[u64; 6], pieces: &[Piece<'_>], result: Option<i64>) -> Observed {
        let errno = result.filter(|result| (-4095..0).contains(result));
        let errno = errno.map(|errno| Errno::of_number(errno.unsigned_abs(), self.abi.family));
        let mut call = Syscall {
            name: format!("syscall_{number}"),
            number,
            args: Vec::new(),
            result: result.filter(|_| errno.is_none()),
            errno: errno.map(|errno| errno.name().to_owned()),
            support: Support::Full,
        };
        let mut observed = Observed {
            call: call.clone(),
            about: About::Nothing,
            paths: Vec::new(),
            mode: None,
        };
        let Some(row) = table::table().find(self.abi.family, number) else {
            return observed;
        };
        let view = View {
            abi: &self.abi,
            memory: &Nowhere,
        };
        row.name.clone_into(&mut call.name);
        call.args = Shown { view, words }.arguments(&row.params);
        for piece in pieces {
            let (Some(param), Some(arg)) =
                (row.params.get(piece.argument), call.args.get_mut(piece.argument))
            else {
                continue;
            };
            if let Some(value) = self.value(param.kind, piece.bytes, result) {
                arg.value = value;
            }
        }
        observed.about = match row.effect {
            Effect::None => About::Nothing,
            Effect::File(op) => About::File(op),
            Effect::Network(op) => About::Network(op),
        };
        for (index, arg) in call.args.iter().enumerate() {
            let ArgValue::Path(path) = &arg.value else {
                continue;
            };
            let before = index.checked_sub(1);
            let at = before.filter(|before| {
                row.params
                    .get(*before)
                    .is_some_and(|param| param.kind == Kind::At)
            });
            let word = at.and_then(|at| words.get(at)).copied();
            let base = match word.filter(|word| !is_at_cwd(*word)) {
                Some(word) => Base::Descriptor((word as u32).cast_signed()),
                None => Base::WorkingDirectory,
            };
            observed.paths.push((base, path.clone()));
        }
        let mode = row.params.iter().position(|param| param.kind == Kind::Mode);
        observed.mode = mode
            .and_then(|index| words.get(index))
            .map(|mode| (*mode & 0o7777) as u32);
        observed.call = call;
        observed
    }

    fn value(&self, kind: Kind, bytes: &[u8], result: Option<i64>) -> Option<ArgValue> {
        let mut texts = bytes
            .split_inclusive(|byte| *byte == 0)
            .map(|one| one.strip_suffix(&[0]).unwrap_or(one));
        Some(match kind {
            Kind::Path => ArgValue::Path(text_up_to(texts.next()?, 4096)),
            Kind::Text => ArgValue::Text(text_up_to(texts.next()?, SHOWN)),
            Kind::Texts => ArgValue::Texts(texts.map(|one| text_up_to(one, SHOWN)).collect()),
            Kind::Socket | Kind::Address => ArgValue::Socket(Spoken::read(&self.abi, bytes)?.to_string()),
            Kind::In | Kind::Out => {
                let length = result.and_then(|result| u64::try_from(result).ok());
                table::show(bytes, length.unwrap_or(bytes.len() as u64))
            }
            _ => ArgValue::Text(text(bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::profile;

    #[test]
    fn a_call_looks_as_the_emulated_linux_tells_it() {
        let calls = Calls::new(&profile("x86_64"));
        let pieces = [Piece {
            argument: 1,
            bytes: b"etc/passwd\0",
        }];
        let told = calls.tell(257, &[5, 0x1000, 0o100, 0o600, 0, 0], &pieces, Some(-2));
        assert_eq!(told.call.name, "openat");
        assert_eq!(told.call.errno.as_deref(), Some("ENOENT"));
        assert_eq!(told.paths, [(Base::Descriptor(5), "etc/passwd".to_owned())]);
        assert_eq!(told.mode, Some(0o600));
        let write = calls.tell(
            1,
            &[1, 0x2000, 6, 0, 0, 0],
            &[Piece {
                argument: 1,
                bytes: b"hello\n",
            }],
            Some(6),
        );
        assert_eq!(
            write.call.args.get(1).map(|arg| &arg.value),
            Some(&ArgValue::Text("hello\n".to_owned()))
        );
        assert_eq!(write.call.result, Some(6));
        let unknown = calls.tell(9999, &[0; 6], &[], Some(0));
        assert_eq!(unknown.call.name, "syscall_9999");
    }

    #[test]
    fn addresses_and_lists_are_read() {
        let calls = Calls::new(&profile("x86_64"));
        let address = [2, 0, 0, 80, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let piece = |argument, bytes| Piece { argument, bytes };
        let connect = calls.tell(42, &[3, 1, 16, 0, 0, 0], &[piece(1, &address)], Some(-115));
        assert_eq!(connect.about, About::Network(NetworkOp::Connect));
        assert_eq!(connect.call.errno.as_deref(), Some("EINPROGRESS"));
        assert_eq!(
            connect.call.args.get(1).map(|arg| &arg.value),
            Some(&ArgValue::Socket("192.0.2.1:80".to_owned()))
        );
        let execve = calls.tell(
            59,
            &[1, 2, 3, 0, 0, 0],
            &[piece(0, b"/bin/sh\0"), piece(1, b"sh\0-c\0")],
            None,
        );
        let argv = execve.call.args.get(1).map(|arg| &arg.value);
        assert_eq!(
            argv,
            Some(&ArgValue::Texts(vec!["sh".to_owned(), "-c".to_owned()]))
        );
    }
}
