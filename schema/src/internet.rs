//! The simulated internet as a person declares it, and as a cell is given it. Nothing of it reaches a real network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Network;
use crate::guest::Hex;
use crate::sysroot::Sysroot;

/// What network a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// The guest's own loopback; every other address is unreachable.
    #[default]
    None,
    /// The simulated internet: every name resolves, every address answers, and nothing leaves the cell.
    Sink,
}

impl NetworkMode {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What a guest with `network = "sink"` meets beyond its own machine. Every name resolves, every address answers: what is not
/// declared is a web server with one page on port 80, and elsewhere someone who listens and says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct InternetWith {
    /// Addresses of names; absent ones get one of 198.18.0.0/15 that follows from the name. All names have one of IPv6 too, of
    /// 2001:db8::/32.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// Names that do not exist (`NXDOMAIN`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Texts that web servers give: URL (`http://host/path`) to text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pages: BTreeMap<String, String>,
    /// Names of sources whose files web servers give: the file `host/path` is `http://host/path`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub web: Vec<String>,
    /// Who answers by a script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<ScriptedPeer>,
}

/// Somebody on the simulated internet who acts by a script, for instance a command server. TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScriptedPeer {
    /// Its name or address; absent: anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// What it does, in order; after that it listens and says nothing.
    pub script: Vec<PeerStep>,
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerStep {
    /// Send a text.
    Send(String),
    /// Send bytes.
    SendHex(Hex),
    /// Wait until this was received.
    Expect(String),
    /// Hang up.
    Close,
}

/// The simulated internet among what a cell is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Internet {
    /// As it was declared.
    pub with: InternetWith,
    /// Files of web servers, each below a folder with the host's name.
    pub web: Option<Sysroot>,
}

/// What the simulated internet has to tell of a guest that runs on the host's own Linux: one line of what a keeper hands over for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// When it was, by the clock of the host's kernel (`CLOCK_MONOTONIC`), in nanoseconds.
    pub time: u64,
    /// What it was.
    pub what: Network,
}

impl Heard {
    /// The name under which a keeper hands it over. No output of a stage: the runner takes it into the events.
    pub const PORT: &str = "heard";
}
