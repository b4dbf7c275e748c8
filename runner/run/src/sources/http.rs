//! Fetching over HTTP, within bounds.

use std::fmt::Debug;
use std::io::Read as _;
use std::time::Duration;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(30);
/// How long one file may take.
const WHOLE: Duration = Duration::from_secs(900);

/// Fetches a file by its address.
pub trait Http: Debug + Send + Sync {
    /// Its bytes, at most so many. The error says why not.
    fn get(&self, url: &str, most: u64) -> Result<Vec<u8>, String>;
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
            .max_redirects(5)
            .user_agent("hotcell")
            .build();
        Ok(Self { agent: config.into() })
    }
}

impl Http for Client {
    fn get(&self, url: &str, most: u64) -> Result<Vec<u8>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{url} cannot be fetched: {error}");
        let response = self.agent.get(url).call().map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&error))?;
        match bytes.len() as u64 > most {
            true => Err(failed(&format!("it is larger than {most} bytes"))),
            false => Ok(bytes),
        }
    }
}
