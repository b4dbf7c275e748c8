//! What the simulated internet tells of a guest, among the events that the host's kernel tells of it.
//!
//! In: both, each in its order and by the same clock. Out: one stream. The kernel tells of a call when it has come back, and by then
//! the other side may have heard what was sent or not yet: what it heard stands behind the call that sent it either way.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hotcell_schema::event::{Event, Network, NetworkOp, Task, What, Witness};
use hotcell_schema::internet::Heard;

/// Calls that send.
const SENDS: [&str; 8] = [
    "sendto", "sendmsg", "sendmmsg", "write", "writev", "send", "sendfile", "splice",
];

/// Puts what was heard into its places.
#[derive(Debug)]
pub(super) struct Merge {
    heard: VecDeque<Heard>,
    /// When events begin to count, by the clock of what was heard.
    began: u64,
    /// Names that addresses were found by.
    names: BTreeMap<IpAddr, String>,
    /// Numbers, as the kernel counts, of the events before which something was put.
    before: Vec<u64>,
    /// Who sent something last, and when.
    sender: Option<Task>,
    /// The call behind which what was heard stands: its task and time.
    sending: Option<(Task, u64)>,
    time: u64,
    next: u64,
}

impl Merge {
    /// Of what was `heard`, in its order. `hosts`: addresses that names were declared to have.
    pub(super) fn new(heard: Vec<Heard>, began: u64, hosts: &BTreeMap<String, Ipv4Addr>) -> Self {
        let names = hosts.iter().rev().map(|(name, ip)| ((*ip).into(), name.clone()));
        Self {
            heard: heard.into(),
            began,
            names: names.collect(),
            before: Vec::new(),
            sender: None,
            sending: None,
            time: 0,
            next: 0,
        }
    }

    /// The number in the stream of the event to which the kernel gave one.
    pub(super) fn number(&self, seq: u64) -> u64 {
        seq + self.before.partition_point(|before| *before <= seq) as u64
    }

    /// The event with its number in the stream.
    pub(super) fn renumbered(&self, event: Event) -> Event {
        Event {
            seq: self.number(event.seq),
            ..event
        }
    }

    /// Takes the kernel's next event.
    pub(super) fn take(&mut self, mut event: Event, out: &mut Vec<Event>) {
        let is_same_call = |(task, time): &(Task, u64)| *task == event.task && *time == event.time;
        if !self.sending.as_ref().is_some_and(is_same_call) {
            self.sending = None;
        }
        let sends = matches!(&event.what, What::Syscall(call) if SENDS.contains(&call.name.as_str()));
        if sends {
            self.sending = Some((event.task.clone(), event.time));
        }
        if self.sending.is_none() {
            self.put(event.time, event.seq, &event.task, out);
        }
        if sends {
            self.sender = Some(event.task.clone());
        }
        if let What::Network(network) = &mut event.what {
            self.name(network);
        }
        self.time = self.time.max(event.time);
        let event = self.renumbered(event);
        self.next = event.seq + 1;
        out.push(event);
    }

    /// Puts what is left behind all others.
    pub(super) fn finish(&mut self, out: &mut Vec<Event>) {
        let nobody = || Task {
            pid: 0,
            tid: 0,
            parent: 0,
            image: String::new(),
        };
        let task = out.last().map_or_else(nobody, |event| event.task.clone());
        self.put(u64::MAX, u64::MAX, &task, out);
    }

    /// Puts what was heard until then.
    fn put(&mut self, time: u64, before: u64, task: &Task, out: &mut Vec<Event>) {
        while let Some(heard) = self
            .heard
            .pop_front_if(|heard| heard.time.saturating_sub(self.began) <= time)
        {
            let Heard { time: at, what } = heard;
            if let (NetworkOp::Resolve, Some(peer), Some(host)) = (what.op, &what.peer, &what.host)
                && let Ok(ip) = peer.parse()
            {
                self.names.insert(ip, host.to_ascii_lowercase());
            }
            self.time = self.time.max(at.saturating_sub(self.began));
            out.push(Event {
                seq: self.next,
                time: self.time.min(time),
                witness: Witness::Engine,
                task: self.sender.as_ref().unwrap_or(task).clone(),
                what: What::Network(what),
                raw: None,
            });
            self.next += 1;
            self.before.push(before);
        }
    }

    /// Names the peer, if it was found by a name.
    fn name(&self, network: &mut Network) {
        let peer = network
            .peer
            .as_ref()
            .and_then(|peer| peer.parse::<SocketAddr>().ok());
        if network.host.is_none()
            && let Some(peer) = peer
        {
            network.host = self.names.get(&peer.ip().to_canonical()).cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use hotcell_schema::event::Syscall;

    use super::*;

    fn event(seq: u64, time: u64, name: &str) -> Event {
        Event {
            seq,
            time,
            witness: Witness::Kernel,
            task: Task {
                pid: 7,
                tid: 7,
                parent: 1,
                image: "/s".to_owned(),
            },
            what: What::Syscall(Syscall {
                name: name.to_owned(),
                number: 0,
                args: Vec::new(),
                result: Some(0),
                errno: None,
                support: hotcell_schema::event::Support::Full,
            }),
            raw: None,
        }
    }

    fn resolved(time: u64, name: &str, ip: &str) -> Heard {
        Heard {
            time,
            what: Network {
                op: NetworkOp::Resolve,
                protocol: "udp".to_owned(),
                local: None,
                peer: Some(ip.to_owned()),
                host: Some(name.to_owned()),
                request: None,
                bytes: None,
                errno: None,
            },
        }
    }

    fn connect(seq: u64, time: u64, peer: &str) -> Event {
        Event {
            what: What::Network(Network {
                op: NetworkOp::Connect,
                protocol: "tcp".to_owned(),
                peer: Some(peer.to_owned()),
                host: None,
                ..resolved(0, "", "").what
            }),
            ..event(seq, time, "")
        }
    }

    fn merged(heard: Vec<Heard>, events: Vec<Event>) -> (Vec<Event>, Merge) {
        let mut merge = Merge::new(heard, 1000, &BTreeMap::new());
        let mut out = Vec::new();
        for event in events {
            merge.take(event, &mut out);
        }
        merge.finish(&mut out);
        (out, merge)
    }

    /// Whether the other side heard before the call came back or after: it stands behind the call.
    #[test]
    fn what_was_heard_stands_behind_the_call_that_sent_it() {
        for at in [1015, 1025] {
            let events = vec![
                event(0, 10, "socket"),
                event(1, 20, "sendto"),
                event(2, 30, "poll"),
                connect(3, 40, "198.18.0.1:80"),
            ];
            let (out, merge) = merged(vec![resolved(at, "a.example", "198.18.0.1")], events);
            let numbers: Vec<u64> = out.iter().map(|event| event.seq).collect();
            assert_eq!(numbers, [0, 1, 2, 3, 4]);
            assert!(out.is_sorted_by_key(|event| event.time), "{out:?}");
            assert!(matches!(&out[2].what, What::Network(network) if network.op == NetworkOp::Resolve));
            assert_eq!((out[2].witness, out[2].task.pid), (Witness::Engine, 7));
            assert!(
                matches!(&out[4].what, What::Network(network) if network.host.as_deref() == Some("a.example"))
            );
            assert_eq!([1, 2, 3].map(|seq| merge.number(seq)), [1, 3, 4]);
        }
    }

    #[test]
    fn what_was_heard_at_last_is_not_lost() {
        let (out, _) = merged(
            vec![resolved(9000, "a.example", "198.18.0.1")],
            vec![event(0, 10, "sendto")],
        );
        assert_eq!(out.len(), 2);
        let (out, _) = merged(vec![resolved(9000, "a.example", "198.18.0.1")], Vec::new());
        assert_eq!((out.len(), out[0].seq), (1, 0));
    }
}
