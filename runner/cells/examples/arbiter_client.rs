//! Hands a process in at the arbiter of a host, says what it answers, and dies when its input has ended. For tests.
//!
//! `arbiter_client SOCKET PID`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a helper of tests")]

use std::path::PathBuf;

use hotcell_cells::cores::arbiter::GiveCores as _;
use hotcell_cells::cores::schedule::Request;
use hotcell_cells::cores::service::client::{Connection, HostArbiter};
use hotcell_cells::stop::StopSignal;

fn main() {
    let mut words = std::env::args_os().skip(1);
    let socket = PathBuf::from(words.next().unwrap());
    let pid: i32 = words.next().unwrap().to_str().unwrap().parse().unwrap();
    let admitted = Connection::open(&socket)
        .map_err(|error| error.to_string())
        .and_then(|connection| {
            let stop = StopSignal::new().map_err(|error| error.to_string())?;
            HostArbiter::new(&socket, connection, stop, |_| {}).map_err(|error| error.to_string())
        })
        .and_then(|arbiter| {
            let request = Request {
                memory: 64 << 20,
                ..Request::of(0)
            };
            let claim = arbiter.admit(request, pid, "mine");
            let claim = claim.map_err(|error| error.to_string())?;
            println!("admitted");
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            // Nothing is dropped: the end of the process is all that the arbiter hears.
            let _ = &claim;
            std::process::exit(0)
        });
    let Err::<std::convert::Infallible, _>(why) = admitted;
    println!("{why}");
}
