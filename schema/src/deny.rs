//! What a guest may not do, and what happens when it tries: `with.deny` of `qemu-user/linux`.
//!
//! One table for all who act on it: what can be decided on numbers is refused by seccomp when the call begins; where the address
//! lies in memory, by the control group's hooks (`connect4` and their like, include/uapi/linux/bpf.h), and files of sockets by
//! Landlock; and who shall be ended is
//! ended by the monitor's part in the kernel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a guest may not do. What is denied fails with `EPERM`, whoever of the guest's processes does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Deny {
    /// Reaching an IP address: `connect`, and datagrams that name where they go. Unix sockets are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Denial>,
    /// Waiting for others to connect: `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Denial>,
    /// Running a program after the first: `execve` and `execveat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Denial>,
    /// Making a file, folder, link, device or name, also opening with `O_CREAT` what is there already. Where a socket would make
    /// its file (`bind`), it fails with `EACCES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<Denial>,
    /// Removing a file or folder, or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<Denial>,
}

/// What happens to who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// The call fails.
    Refuse,
    /// The call fails, and the process is ended by `SIGKILL` before it hears so.
    Kill,
}

/// What can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denied {
    /// [`Deny::connect`].
    Connect,
    /// [`Deny::listen`].
    Listen,
    /// [`Deny::exec`].
    Exec,
    /// [`Deny::create`].
    Create,
    /// [`Deny::delete`].
    Delete,
}

/// A system call of the host that is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its name. Not every architecture has all of them.
    pub name: &'static str,
    /// When.
    pub when: When,
}

/// When a call is one that is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// One of these bits of an argument is set.
    Bits(u8, u64),
    /// One of these bits is set in the eight bytes that an argument points at.
    BitsAt(u8, u64),
    /// An argument points at the address of a unix socket, which may be a file's name.
    Unix(u8),
    /// An argument points at an IP address.
    Address(u8),
    /// An argument points at a `struct msghdr` that names an IP address.
    Message(u8),
}

/// `O_CREAT` and `__O_TMPFILE` (include/uapi/asm-generic/fcntl.h), which x86 and arm64 have alike.
const MAKES: u64 = 0o100 | 0o20_000_000;

const fn call(name: &'static str, when: When) -> Call {
    Call { name, when }
}

impl Denied {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Connect,
        Self::Listen,
        Self::Exec,
        Self::Create,
        Self::Delete,
    ];

    /// Its name in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Exec => "exec",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    /// The calls by which it is done.
    pub fn calls(self) -> &'static [Call] {
        const CONNECT: &[Call] = &[
            call("connect", When::Address(1)),
            call("sendto", When::Address(4)),
            call("sendmsg", When::Message(1)),
        ];
        const LISTEN: &[Call] = &[call("listen", When::Always)];
        const EXEC: &[Call] = &[call("execve", When::Always), call("execveat", When::Always)];
        const CREATE: &[Call] = &[
            call("open", When::Bits(1, MAKES)),
            call("openat", When::Bits(2, MAKES)),
            // `struct open_how` begins with the flags (openat2(2)).
            call("openat2", When::BitsAt(2, MAKES)),
            call("creat", When::Always),
            call("mkdir", When::Always),
            call("mkdirat", When::Always),
            call("mknod", When::Always),
            call("mknodat", When::Always),
            call("link", When::Always),
            call("linkat", When::Always),
            call("symlink", When::Always),
            call("symlinkat", When::Always),
            call("rename", When::Always),
            call("renameat", When::Always),
            call("renameat2", When::Always),
            call("bind", When::Unix(1)),
        ];
        const DELETE: &[Call] = &[
            call("unlink", When::Always),
            call("unlinkat", When::Always),
            call("rmdir", When::Always),
            call("rename", When::Always),
            call("renameat", When::Always),
            call("renameat2", When::Always),
        ];
        match self {
            Self::Connect => CONNECT,
            Self::Listen => LISTEN,
            Self::Exec => EXEC,
            Self::Create => CREATE,
            Self::Delete => DELETE,
        }
    }
}

impl Deny {
    /// What happens to who does one thing; absent: it may be done.
    pub fn of(&self, denied: Denied) -> Option<Denial> {
        match denied {
            Denied::Connect => self.connect,
            Denied::Listen => self.listen,
            Denied::Exec => self.exec,
            Denied::Create => self.create,
            Denied::Delete => self.delete,
        }
    }

    /// What is denied, in a fixed order.
    pub fn each(&self) -> impl Iterator<Item = (Denied, Denial)> {
        Denied::ALL
            .into_iter()
            .filter_map(|denied| Some((denied, self.of(denied)?)))
    }

    /// Whether nothing is denied.
    pub fn is_empty(&self) -> bool {
        self.each().next().is_none()
    }
}
