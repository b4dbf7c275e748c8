//! Web servers: one request, one answer, and the connection ends.

use std::net::SocketAddr;

use hotcell_schema::internet::InternetWith;
use serde::{Deserialize, Serialize};

use super::{MAX_HELD, Reply, Said, Web};

/// Longest header, and most of its lines.
const MAX_HEADER: usize = 64 << 10;
const MAX_LINES: usize = 100;
/// Characters of a host's name and of a request that are told.
const MAX_HOST: usize = 255;
const MAX_REQUEST: usize = 2048;
/// What a server gives of which nothing is declared.
const PAGE: &[u8] = b"<html><head><title>It works</title></head><body><p>It works.</p></body></html>\n";

/// What first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// A request begins.
    Yes,
    No,
    /// Too few to say.
    Unknown,
}

/// Whether a request begins with these bytes.
pub(crate) fn begins(bytes: &[u8]) -> Begins {
    const METHODS: [&[u8]; 7] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
    ];
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Begins::Yes;
    }
    match METHODS.iter().any(|method| method.starts_with(bytes)) {
        true => Begins::Unknown,
        false => Begins::No,
    }
}

/// A connection to a web server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Exchange {
    header: Vec<u8>,
    /// Bytes of the body that are still to come, once the header is whole.
    body: Option<u64>,
    /// The answer was given.
    over: bool,
}

impl Exchange {
    pub(crate) fn hear(
        &mut self,
        with: &InternetWith,
        web: &dyn Web,
        name: Option<&str>,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Reply {
        if self.over {
            return Reply::default();
        }
        let mut rest = bytes;
        if self.body.is_none() {
            let room = MAX_HEADER.min(MAX_HELD).saturating_sub(self.header.len());
            let (taken, more) = bytes.split_at(bytes.len().min(room));
            self.header.extend_from_slice(taken);
            let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
            let mut request = httparse::Request::new(&mut lines);
            match request.parse(&self.header) {
                Ok(httparse::Status::Complete(length)) => {
                    let said = |name: &str| {
                        let mut all = request.headers.iter();
                        let line = all.find(|line| line.name.eq_ignore_ascii_case(name))?;
                        std::str::from_utf8(line.value).ok()
                    };
                    let whole: u64 = said("content-length")
                        .and_then(|text| text.trim().parse().ok())
                        .unwrap_or(0);
                    let after = self.header.len().saturating_sub(length) as u64;
                    self.body = Some(whole.saturating_sub(after));
                    rest = more;
                }
                Ok(httparse::Status::Partial) if self.header.len() < MAX_HEADER => return Reply::default(),
                _ => {
                    self.over = true;
                    return page("400 Bad Request", b"", false);
                }
            }
        }
        let left = self.body.unwrap_or(0).saturating_sub(rest.len() as u64);
        self.body = Some(left);
        if left > 0 {
            return Reply::default();
        }
        self.over = true;
        self.answer(with, web, name, to)
    }

    fn answer(&self, with: &InternetWith, web: &dyn Web, name: Option<&str>, to: SocketAddr) -> Reply {
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut request = httparse::Request::new(&mut lines);
        let _ = request.parse(&self.header);
        let (method, target) = (request.method.unwrap_or("GET"), request.path.unwrap_or("/"));
        let host = request
            .headers
            .iter()
            .find(|line| line.name.eq_ignore_ascii_case("host"));
        let host = host
            .and_then(|line| std::str::from_utf8(line.value).ok())
            .map(str::trim);
        // A proxy is asked for a whole URL.
        let (own, path) = match target.strip_prefix("http://") {
            Some(rest) => match rest.find('/') {
                Some(slash) => (
                    Some(rest.get(..slash).unwrap_or_default()),
                    rest.get(slash..).unwrap_or("/"),
                ),
                None => (Some(rest), "/"),
            },
            None => (None, target),
        };
        let address = to.ip().to_string();
        let host = own
            .or(host)
            .filter(|host| !host.is_empty())
            .or(name)
            .unwrap_or(&address);
        let plain = host
            .strip_suffix(&format!(":{}", to.port()))
            .unwrap_or(host)
            .to_ascii_lowercase();
        let file = path.split(['?', '#']).next().unwrap_or("/");
        let shown = if to.port() == 80 {
            plain.clone()
        } else {
            format!("{plain}:{}", to.port())
        };
        let url = format!("http://{shown}{path}");
        let text = |url: &str| with.pages.get(url).map(|text| text.clone().into_bytes());
        let bare = format!("http://{shown}{file}");
        let found = text(&url)
            .or_else(|| text(&bare))
            .or_else(|| web.file(&plain, file));
        let prefix = format!("http://{shown}/");
        let known = web.knows(&plain) || with.pages.keys().any(|page| page.starts_with(&prefix));
        let mut reply = match found {
            Some(content) => page("200 OK", &content, method == "HEAD"),
            None if known => page("404 Not Found", b"", method == "HEAD"),
            None => page("200 OK", PAGE, method == "HEAD"),
        };
        reply.said.push(Said::Requested {
            host: shown.chars().take(MAX_HOST).collect(),
            request: format!("{method} {url}").chars().take(MAX_REQUEST).collect(),
        });
        reply
    }
}

fn page(status: &str, content: &[u8], head: bool) -> Reply {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    )
    .into_bytes();
    if !head {
        bytes.extend_from_slice(content);
    }
    Reply {
        bytes,
        closes: true,
        said: Vec::new(),
    }
}
