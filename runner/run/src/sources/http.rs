//! Fetching over HTTP, within bounds.
//!
//! A redirect may lead to the same host, or to any host over HTTPS; never from HTTPS to HTTP, and never to an address with
//! a user or a password. What is fetched is believed for its digest or signature alone.

use std::fmt::Debug;
use std::io::{self, Read as _, Write};
use std::time::Duration;

use fluent_uri::{Uri, UriRef};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(30);
/// How long one file may take.
const WHOLE: Duration = Duration::from_secs(900);
/// Redirects of one file.
const MAX_REDIRECTS: usize = 5;
/// Longest address.
const MAX_ADDRESS: usize = 2000;

/// Fetches a file by its address.
pub trait Http: Debug + Send + Sync {
    /// Writes its bytes, at most so many, and says how many. The error says why not; some may be written then.
    fn get(&self, url: &str, most: u64, out: &mut dyn Write) -> Result<u64, String>;
}

/// The client that runs use.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client that takes the given proxy (`http://host:port`), where there is one.
    pub fn new(proxy: Option<&str>) -> Result<Self, String> {
        let proxy = proxy
            .map(ureq::Proxy::new)
            .transpose()
            .map_err(|error| format!("the proxy cannot be used: {error}"))?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .proxy(proxy)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(WHOLE))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("hotcell")
            .build();
        Ok(Self { agent: config.into() })
    }
}

impl Http for Client {
    fn get(&self, url: &str, most: u64, out: &mut dyn Write) -> Result<u64, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{url} cannot be fetched: {error}");
        let mut at = url.to_owned();
        let mut response = None;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.agent.get(&at).call().map_err(|error| failed(&error))?;
            if !answer.status().is_redirection() {
                response = Some(answer);
                break;
            }
            let location = answer
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| failed(&"it leads elsewhere and does not say where"))?;
            at = redirected(&at, location).map_err(|error| failed(&error))?;
        }
        let response = response.ok_or_else(|| failed(&format!("more than {MAX_REDIRECTS} redirects")))?;
        let mut body = response.into_body().into_reader().take(most.saturating_add(1));
        let length = io::copy(&mut body, out).map_err(|error| failed(&error))?;
        match length > most {
            true => Err(failed(&format!("it is larger than {most} bytes"))),
            false => Ok(length),
        }
    }
}

/// Scheme and host of an address.
fn origin(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let known = ["http", "https"].contains(&scheme);
    (known && !host.is_empty() && !host.contains('@')).then_some((scheme, host))
}

/// Where a redirect leads, if it may lead there.
fn redirected(from: &str, location: &str) -> Result<String, String> {
    let refused = || format!("it leads to `{}`, where nothing is fetched from", shown(location));
    let (scheme, host) = origin(from).ok_or_else(refused)?;
    let base = Uri::parse(from).map_err(|_| refused())?;
    let to = UriRef::parse(location).map_err(|_| refused())?;
    let to = to.resolve_against(&base).map_err(|_| refused())?.into_string();
    let (new_scheme, new_host) = origin(&to).ok_or_else(refused)?;
    let downgrades = scheme == "https" && new_scheme == "http";
    let strays = new_host != host && new_scheme != "https";
    match downgrades || strays || to.len() > MAX_ADDRESS || to.contains(char::is_control) {
        true => Err(refused()),
        false => Ok(to),
    }
}

/// An address, without who would log in there.
fn shown(address: &str) -> String {
    let plain: String = address.chars().filter(|c| !c.is_control()).take(200).collect();
    match plain.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_or_go_over_https() {
        let ok = [
            ("http://a/x/y", "/z", "http://a/z"),
            ("http://a/x/y", "z", "http://a/x/z"),
            ("http://a/x/y", "../z", "http://a/z"),
            ("http://a:80/x", "http://a:80/z", "http://a:80/z"),
            ("http://a/x", "https://b/z", "https://b/z"),
            ("https://a/x", "//b/z", "https://b/z"),
        ];
        for (from, location, to) in ok {
            assert_eq!(redirected(from, location).as_deref(), Ok(to), "{location}");
        }
        for (from, location) in [
            ("https://a/x", "http://a/x"),
            ("http://a/x", "http://b/x"),
            ("http://a/x", "//b/x"),
            ("http://a/x", "http://169.254.169.254/latest"),
            ("https://a/x", "https://u:p@b/x"),
            ("https://a/x", "file:///etc/passwd"),
            ("https://a/x", "ftp://b/x"),
            ("https://a/x", "/x\ny"),
            ("https://a/x", "https:///x"),
        ] {
            let error = redirected(from, location).unwrap_err();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
