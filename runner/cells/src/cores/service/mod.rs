//! The arbiter of a host, as a service: runners of several users share its cores, and no core ever has two cells.
//!
//! It listens on a Unix socket, knows its users by what the kernel says of them (`SO_PEERCRED`, `unix(7)`), and takes over
//! cells by pidfds that their runners send. A cell belongs to the connection on which it was admitted: when that ends, so
//! does the cell. What must survive the arbiter's own death is in one small file ([`kept`]): which cells there were (they
//! are made to stand still until their runners hand them in once more), who is banned, what was used up today.
//!
//! | module | what is there |
//! |---|---|
//! | [`wire`] | messages and packets |
//! | [`policy`] | users, quotas, bans: knows no clock and no socket |
//! | [`kept`] | what survives a restart |
//! | [`server`] | the service itself |
//! | `desk` | one connection: what is asked, and the answers |
//! | [`client`] | the runner's side, which finds a restarted arbiter again |

pub mod client;
mod desk;
pub mod kept;
pub mod policy;
pub mod server;
pub mod wire;

use self::wire::Which;

/// Where the arbiter of a host listens.
pub const SOCKET: &str = "/run/hotcell/arbiter.sock";
/// Where a host's manifest is.
pub const MANIFEST: &str = "/etc/hotcell/host.toml";

/// Who did something: a user id, and what the host manifest calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// User id, as the kernel says.
    pub uid: u32,
    /// Name in the host manifest, where it has one.
    pub name: Option<String>,
}

/// What is written down in the audit journal before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The arbiter began.
    Started,
    /// It ended in order.
    Ended,
    /// A user may not run anything.
    Banned(By),
    /// A user may again.
    Unbanned(By),
    /// Cells were ended: which, and how many there were.
    Killed(Which, u64),
    /// Cells were made to stand still.
    Paused(Which, u64),
    /// Cells were let go on.
    Resumed(Which, u64),
    /// A core was taken out of exclusive use.
    Reclaimed(u32),
    /// A core was given back.
    GivenBack(u32),
    /// Slices have another length, in nanoseconds: what it was, and what it is.
    Slice(u64, u64),
    /// A user took more than the quota allows.
    Exceeded {
        /// Who.
        user: By,
        /// Of what.
        what: Exceeded,
        /// How much is allowed: seconds, or bytes.
        limit: u64,
        /// How much it was.
        asked: u64,
    },
}

/// What a user took too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// Seconds on cores within a day.
    CpuTime,
    /// Seconds that one cell ran.
    WallTime,
    /// Bytes of memory of one cell.
    Memory,
}

/// Writes down what is about to be done. What cannot be written down is not done.
pub trait Record: Send {
    /// Writes one line.
    ///
    /// # Errors
    ///
    /// If it is not surely kept; then in words.
    fn record(&mut self, by: &By, deed: &Deed, reason: Option<&str>) -> Result<(), String>;
}
