//! Handlers of system calls, by subject. What they need of the guest comes through [`Call`](crate::call::Call).

pub(crate) mod attributes;
pub(crate) mod dir;
pub(crate) mod epoll;
pub(crate) mod extended;
pub(crate) mod file;
pub(crate) mod identity;
pub(crate) mod inotify;
mod interface;
pub(crate) mod io;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod misc;
pub(crate) mod net;
mod netlink;
pub(crate) mod option;
pub(crate) mod path;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod signalfd;
pub(crate) mod socket;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod wait;
