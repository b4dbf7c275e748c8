//! Peers that act by a script.

use hotcell_schema::internet::{InternetWith, PeerStep};
use serde::{Deserialize, Serialize};

use super::{MAX_HELD, Reply};

/// How far a peer is in its script.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Which of the declared peers.
    peer: usize,
    /// The next step.
    step: usize,
    /// What was heard and not expected yet.
    heard: Vec<u8>,
}

impl Script {
    pub(crate) fn new(peer: usize) -> Self {
        Self {
            peer,
            step: 0,
            heard: Vec::new(),
        }
    }

    pub(crate) fn hear(&mut self, with: &InternetWith, bytes: &[u8]) -> Reply {
        let room = MAX_HELD.saturating_sub(self.heard.len());
        self.heard.extend(bytes.iter().take(room));
        self.go_on(with)
    }

    /// Goes on until it has to wait.
    pub(crate) fn go_on(&mut self, with: &InternetWith) -> Reply {
        let mut reply = Reply::default();
        let steps = with
            .peers
            .get(self.peer)
            .map(|peer| peer.script.as_slice())
            .unwrap_or_default();
        while let Some(step) = steps.get(self.step) {
            match step {
                PeerStep::Send(text) => reply.bytes.extend_from_slice(text.as_bytes()),
                PeerStep::SendHex(bytes) => reply.bytes.extend_from_slice(&bytes.0),
                PeerStep::Expect(text) => {
                    let wanted = text.as_bytes();
                    let found = match wanted {
                        [] => Some(0),
                        _ => self
                            .heard
                            .windows(wanted.len())
                            .position(|window| window == wanted),
                    };
                    let Some(at) = found else { return reply };
                    self.heard.drain(..at.saturating_add(wanted.len()));
                }
                PeerStep::Close => {
                    reply.closes = true;
                    self.step = steps.len();
                    return reply;
                }
            }
            self.step += 1;
        }
        reply
    }
}
