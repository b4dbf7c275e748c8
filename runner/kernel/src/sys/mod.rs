//! Handlers of system calls, by subject. What they need of the guest comes through [`Call`](crate::call::Call).

pub(crate) mod attributes;
pub(crate) mod children;
pub(crate) mod dir;
pub(crate) mod epoll;
pub(crate) mod file;
pub(crate) mod identity;
pub(crate) mod io;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod misc;
pub(crate) mod net;
pub(crate) mod path;
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod wait;
