//! Namespaces and what else holds the guest.

use std::fs;

use hotcell_cells::cell_side::CellError;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{getegid, geteuid};

use crate::{filter, loopback_unsafe, rights};

/// What is made, and what it is called.
const NAMESPACES: [(CloneFlags, &str); 6] = [
    (CloneFlags::CLONE_NEWNS, "mount-namespace"),
    (CloneFlags::CLONE_NEWPID, "pid-namespace"),
    (CloneFlags::CLONE_NEWNET, "network-namespace"),
    (CloneFlags::CLONE_NEWIPC, "ipc-namespace"),
    (CloneFlags::CLONE_NEWUTS, "uts-namespace"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup-namespace"),
];

/// Moves this process into namespaces of its own; the children that it makes are in a pid namespace of theirs. There it
/// may mount and name; on the host it may nothing. Names the layers. Without these the guest is not run.
pub(crate) fn raise() -> Result<Vec<String>, CellError> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| CellError::Confine(format!("{what}: {error}"));
    prctl::set_no_new_privs().map_err(|error| cannot("no-new-privs", &error))?;
    let (user, group) = (geteuid(), getegid());
    let all = NAMESPACES
        .iter()
        .fold(CloneFlags::CLONE_NEWUSER, |all, (flag, _)| all | *flag);
    unshare(all).map_err(|error| {
        cannot(
            "this host lets us make no namespaces (kernel.unprivileged_userns_clone, user.max_user_namespaces), and without \
             them qemu-user holds nothing",
            &error,
        )
    })?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| cannot(file, &error))?;
    }
    filter::nobodys()
        .and_then(|filters| filter::apply(&filters))
        .map_err(CellError::Confine)?;
    loopback_unsafe::up().map_err(|error| cannot("loopback", &error))?;
    let mut layers = vec![
        "seccomp".to_owned(),
        "no-new-privs".to_owned(),
        "user-namespace".to_owned(),
    ];
    // Of the guest alone: its keeper mounts.
    layers.extend(rights::layer().map(str::to_owned));
    layers.extend(NAMESPACES.iter().map(|(_, name)| (*name).to_owned()));
    Ok(layers)
}
