//! The shape of a call's arguments, and how an event shows them.

use hotcell_schema::event::{Arg, ArgValue};
use hotcell_schema::guest::{Address, text, text_up_to};

use crate::abi::flags;
use crate::abi::signal::Sig;
use crate::call::{Call, SHOWN, is_at_cwd};
use crate::view::{self, View};

/// Kinds of argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A signed `long`.
    Int,
    /// A signed `int`.
    Int32,
    /// A size, or another unsigned `long`.
    Size,
    Fd,
    /// A directory descriptor or AT_FDCWD; the path after it counts from there.
    At,
    Path,
    /// A text that is no path.
    Text,
    Address,
    /// Bytes of the length that the next argument says.
    In,
    /// Bytes of the length that the result says.
    Out,
    /// A list of texts.
    Texts,
    /// Permission bits.
    Mode,
    /// A `timespec` where a pointer says.
    Time,
    /// The same of the 64-bit kind.
    Time64,
    TimerFlags,
    /// What ptrace is asked for.
    Ptrace,
    /// A 64-bit number, two words on a 32-bit ABI.
    Offset,
    OpenFlags,
    AtFlags,
    Protection,
    MapFlags,
    CloneFlags,
    WaitFlags,
    AccessMode,
    Whence,
    Clock,
    Fcntl,
    Signal,
    AddressFamily,
    SocketType,
    /// A socket address of the length that the next argument says.
    Socket,
    /// Flags without names of ours.
    Bits,
}

const KINDS: &[(&str, Kind)] = &[
    ("int", Kind::Int),
    ("i32", Kind::Int32),
    ("size", Kind::Size),
    ("fd", Kind::Fd),
    ("at", Kind::At),
    ("path", Kind::Path),
    ("text", Kind::Text),
    ("addr", Kind::Address),
    ("in", Kind::In),
    ("out", Kind::Out),
    ("texts", Kind::Texts),
    ("mode", Kind::Mode),
    ("timerflags", Kind::TimerFlags),
    ("time", Kind::Time),
    ("time64", Kind::Time64),
    ("ptrace", Kind::Ptrace),
    ("off", Kind::Offset),
    ("open", Kind::OpenFlags),
    ("atflags", Kind::AtFlags),
    ("prot", Kind::Protection),
    ("map", Kind::MapFlags),
    ("clone", Kind::CloneFlags),
    ("wait", Kind::WaitFlags),
    ("access", Kind::AccessMode),
    ("whence", Kind::Whence),
    ("clock", Kind::Clock),
    ("fcntl", Kind::Fcntl),
    ("sig", Kind::Signal),
    ("family", Kind::AddressFamily),
    ("socktype", Kind::SocketType),
    ("sockaddr", Kind::Socket),
    ("bits", Kind::Bits),
];

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// Reads a shape: `name:kind` separated by spaces. A test holds that every row's shape can be read.
pub(super) fn parse(shape: &'static str) -> Option<Vec<Param>> {
    shape
        .split_whitespace()
        .map(|part| {
            let (name, kind) = part.split_once(':')?;
            let kind = KINDS.iter().find(|(known, _)| *known == kind)?.1;
            Some(Param { name, kind })
        })
        .collect()
}

/// The start of a buffer, of which `length` bytes were moved.
pub(crate) fn show(start: &[u8], length: u64) -> ArgValue {
    let shown = text(start);
    let more = length.saturating_sub(start.len() as u64);
    ArgValue::Text(if more == 0 {
        shown
    } else {
        format!("{shown}…(+{more})")
    })
}

/// Most texts of a list that an event holds.
const MAX_TEXTS: usize = 64;

impl Call<'_> {
    /// What is known of the arguments before the call is made.
    pub(crate) fn known_args(&self) -> Vec<Arg> {
        let view = self.view();
        let words = &self.pending.words;
        Shown { view, words }.arguments(&self.pending.row.params)
    }
}

/// A call's words, and the memory that they name.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) view: View<'a>,
    pub(crate) words: &'a [u64],
}

impl Shown<'_> {
    pub(crate) fn arguments(&self, params: &[Param]) -> Vec<Arg> {
        let args = params.iter().enumerate().map(|(index, param)| Arg {
            name: param.name.to_owned(),
            value: self.show_arg(index, param.kind),
        });
        args.collect()
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    fn int(&self, index: usize) -> i32 {
        (self.word(index) as u32).cast_signed()
    }

    fn show_arg(&self, index: usize, kind: Kind) -> ArgValue {
        let word = self.word(index);
        let address = || ArgValue::Address(Address(word));
        let number = || ArgValue::Int(self.view.abi.signed(word));
        let flags_of = |table: &[(u64, &str)]| ArgValue::Flags(flags::names(table, word));
        let name_of = |table: &[(u64, &str)]| {
            flags::name(table, u64::from(word as u32))
                .map_or(ArgValue::Int(i64::from(self.int(index))), ArgValue::Name)
        };
        let next = |index: usize| self.word(index + 1);
        match kind {
            Kind::Int => number(),
            Kind::Int32 => ArgValue::Int(i64::from(self.int(index))),
            Kind::Size => ArgValue::Int(i64::try_from(word).unwrap_or(i64::MAX)),
            Kind::Offset => ArgValue::Int(word.cast_signed()),
            Kind::Fd => ArgValue::Fd(self.int(index)),
            Kind::At if is_at_cwd(word) => ArgValue::Name("AT_FDCWD".into()),
            Kind::At => ArgValue::Fd(self.int(index)),
            Kind::Path => match self.view.text(word, crate::fs::walk::PATH_MAX) {
                Ok(path) => ArgValue::Path(text_up_to(&path, 4096)),
                Err(_) => address(),
            },
            Kind::Text => match self.view.text(word, 4096) {
                Ok(bytes) => ArgValue::Text(text_up_to(&bytes, SHOWN)),
                Err(_) => address(),
            },
            Kind::Texts => match self.view.texts(word) {
                Ok(list) => ArgValue::Texts(
                    list.iter()
                        .take(MAX_TEXTS)
                        .map(|one| text_up_to(one, SHOWN))
                        .collect(),
                ),
                Err(_) => address(),
            },
            Kind::Address | Kind::Out => address(),
            Kind::In => match self.view.bytes(word, next(index).min(SHOWN as u64)) {
                Ok(bytes) => show(&bytes, next(index)),
                Err(_) => address(),
            },
            Kind::Time | Kind::Time64 => match self.view.time_at(word, kind == Kind::Time64) {
                Ok(time) if word != 0 => view::duration(time).map_or_else(|_| address(), ArgValue::Time),
                _ => address(),
            },
            Kind::TimerFlags => flags_of(flags::TIMER),
            Kind::Ptrace => name_of(flags::PTRACE),
            Kind::Mode => ArgValue::Text(format!("0{:o}", word & 0o7777)),
            Kind::OpenFlags => ArgValue::Flags(flags::open_names(self.view.abi, word & 0xffff_ffff)),
            Kind::AtFlags => flags_of(flags::AT),
            Kind::Protection => flags_of(flags::PROTECTION),
            Kind::MapFlags => ArgValue::Flags(flags::map_names(self.view.abi, word)),
            Kind::CloneFlags => {
                let mut names = flags::names(flags::CLONE, word & !0xff);
                if let Some(signal) = Sig::from_number(word & 0xff, self.view.abi.family) {
                    names.push(signal.name());
                }
                ArgValue::Flags(names)
            }
            Kind::WaitFlags => flags_of(flags::WAIT),
            Kind::AccessMode if word == 0 => ArgValue::Name("F_OK".into()),
            Kind::AccessMode => flags_of(flags::ACCESS),
            Kind::Whence => name_of(flags::WHENCE),
            Kind::Clock => name_of(flags::CLOCKS),
            Kind::Fcntl => name_of(flags::FCNTL),
            Kind::Signal => match Sig::from_number(word, self.view.abi.family) {
                Some(signal) => ArgValue::Name(signal.name()),
                None => number(),
            },
            Kind::AddressFamily => name_of(flags::FAMILIES),
            Kind::SocketType => ArgValue::Name(flags::socket_type(self.view.abi, word).to_owned()),
            Kind::Socket => match self.view.socket_address(word, next(index)) {
                Some(address) => ArgValue::Socket(address),
                None => address(),
            },
            Kind::Bits => ArgValue::Flags(flags::names(&[], word)),
        }
    }
}
