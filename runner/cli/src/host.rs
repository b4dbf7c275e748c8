//! The arbiter of this host, as commands meet it.

use std::path::Path;

use hotcell_cells::cores::service::client::{ClientError, Connection};

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::places;

/// Connects to the arbiter of this host.
pub(crate) fn connect(socket: &Path) -> Result<Connection, Failure> {
    Connection::open(socket).map_err(refused)
}

/// Connects to the arbiter of this host, for commands that are about nothing else.
pub(crate) fn must_connect(global: &Global) -> Result<Connection, Failure> {
    let socket = places::arbiter(global).ok_or_else(|| {
        Failure::host("this host has no arbiter: there is no /etc/hotcell/host.toml").help(
            "an administrator writes one and starts `hotcell host arbiter`; or name a socket with --arbiter",
        )
    })?;
    connect(&socket)
}

/// What an arbiter said no to, or why it cannot be asked.
pub(crate) fn refused(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(why) => Failure::new(Exit::Host, format!("the host's arbiter refuses: {why}")),
        ClientError::Connect { .. } => {
            Failure::host(error.to_string()).help("is it running? `hotcell host arbiter` starts it")
        }
        other => Failure::host(other.to_string()),
    }
}

/// The id of a user who is named as in the host's manifest, or by the id itself.
pub(crate) fn uid(arbiter: &mut Connection, user: &str) -> Result<u32, Failure> {
    let users = arbiter.users().map_err(refused)?;
    let named = users.iter().find(|person| person.name == user);
    let id = || user.parse().ok();
    named.map(|person| person.uid).or_else(id).ok_or_else(|| {
        let known: Vec<&str> = users.iter().map(|person| person.name.as_str()).collect();
        Failure::usage(format!("`{user}` is no user of this host"))
            .help(format!("its users are {}", known.join(", ")))
    })
}
