//! One stop request for everything that runs: asked once, cells end soon; asked twice, they end now.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};

/// How urgently everything shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody asked.
    None,
    /// Begin nothing new; running cells end soon.
    Soon,
    /// Running cells end now.
    Now,
}

/// A stop request that many threads share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asked: AtomicU8,
    soon: (OwnedFd, OwnedFd),
    now: (OwnedFd, OwnedFd),
}

impl StopSignal {
    /// A request that nobody has made yet.
    pub fn new() -> io::Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
        Ok(Self(Arc::new(Inner {
            asked: AtomicU8::new(0),
            soon: pipe()?,
            now: pipe()?,
        })))
    }

    /// Asks to stop; a second time: now. Allocates nothing and takes no lock, so a signal handler may call it.
    pub fn request(&self) {
        let before = self
            .0
            .asked
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |asked| {
                Some(asked.saturating_add(1))
            });
        let pipe = match before {
            Ok(0) => &self.0.soon.1,
            _ => &self.0.now.1,
        };
        // The pipe is never read, so that it stays readable for everyone. A full pipe says the same.
        let _ = write(pipe, &[1]);
    }

    /// How urgently everything shall stop.
    pub fn urgency(&self) -> Urgency {
        match self.0.asked.load(Ordering::SeqCst) {
            0 => Urgency::None,
            1 => Urgency::Soon,
            _ => Urgency::Now,
        }
    }

    /// A descriptor that becomes readable at the first request, and stays so.
    pub fn soon(&self) -> BorrowedFd<'_> {
        self.0.soon.0.as_fd()
    }

    /// A descriptor that becomes readable at the second request, and stays so.
    pub fn now(&self) -> BorrowedFd<'_> {
        self.0.now.0.as_fd()
    }
}
