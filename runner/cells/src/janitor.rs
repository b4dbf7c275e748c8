//! Clears what runners left that are no more, and nothing of one that lives.
//!
//! | what | whose it is | who clears it |
//! |---|---|---|
//! | control groups, and processes in them | pid, start time and pid namespace are in the name | [`clear_groups`]; whoever makes groups does it first |
//! | sockets | whoever listens | [`clear_sockets`] |
//! | folders of commands | whoever holds the lock in them | the next [`Commands`](crate::command::Commands) there |
//! | cells | the runner's thread: the kernel ends them with it (`PR_SET_PDEATHSIG`) | nobody has to |
//! | sealed bytes, tables of locks | memory without a name: gone with the last process that has them | nobody has to |

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes control groups of runners that are no more, and ends what is still in them. Gives their number.
pub fn clear_groups() -> usize {
    crate::supervise::clear_groups()
}

/// Removes the sockets of a folder at which nobody listens. Gives their number; a folder that is not there has none.
///
/// Asking is connecting: a listener sees a client that leaves without a word. Who makes a socket there binds it under another
/// name, listens, and renames it: else it could be taken for one of the dead in between.
///
/// # Errors
///
/// If the folder cannot be read. What cannot be removed stays, and is not counted.
pub fn clear_sockets(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut cleared = 0;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let is_ours = path.extension().is_some_and(|ending| ending == "sock");
        if !is_ours || !entry.file_type()?.is_socket() {
            continue;
        }
        // Only this answer means that nobody is there (connect(2)); a listener with a full queue makes one wait or says EAGAIN.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if connect(&path).is_err_and(refused) && fs::remove_file(&path).is_ok() {
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Connects without waiting.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd as _;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn sockets_of_the_living_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(clear_sockets(&at("none")).unwrap(), 0);
        let living = UnixListener::bind(at("living.sock")).unwrap();
        drop(UnixListener::bind(at("dead.sock")).unwrap());
        drop(UnixListener::bind(at("dead.other")).unwrap());
        // Another kind of socket answers otherwise, and is nobody's of ours.
        let datagrams = UnixDatagram::bind(at("datagrams.sock")).unwrap();
        fs::write(at("file.sock"), "").unwrap();
        std::os::unix::fs::symlink(at("dead.other"), at("link.sock")).unwrap();
        assert_eq!(clear_sockets(folder.path()).unwrap(), 1);
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "datagrams.sock",
                "dead.other",
                "file.sock",
                "link.sock",
                "living.sock"
            ]
        );
        drop((living, datagrams));
        // Both are dead now. A queue that is full is somebody's.
        let full = UnixListener::bind(at("full.sock")).unwrap();
        let mut clients = Vec::new();
        while let Ok(client) = connect(&at("full.sock")) {
            clients.push(client);
        }
        assert_eq!(clear_sockets(folder.path()).unwrap(), 2);
        assert!(at("full.sock").exists() && !at("living.sock").exists());
        drop(full);
    }
}
