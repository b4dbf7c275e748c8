//! What a plan is given beside the manifest: a reader of archives and packages, secrets, pins. Secrets read the environment
//! here and nowhere else.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use hotcell_cells::stop::StopSignal;
use hotcell_plan::{Loaded, Package, Supply};
use hotcell_run::sources::http::Client;
use hotcell_run::{Archives, Engines, Secrets};
use hotcell_store::Store;

use crate::commands::store::unusable;
use crate::exit::Failure;
use crate::places::Places;
use crate::session::open_store;
use crate::ui;

/// What a command does with its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It looks: nothing is fetched and nothing written.
    Look,
    /// It runs.
    Run,
}

/// Variables that name a proxy, the first one that is set counts.
const PROXIES: [&str; 6] = [
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
    "HTTP_PROXY",
];

/// What a plan is given.
#[derive(Debug)]
pub(crate) struct Supplies {
    /// Reads archives, fetches packages.
    pub archives: Archives,
    /// The manifest's secrets.
    pub secrets: Arc<Secrets>,
    /// The stop request that whatever runs obeys.
    pub stop: StopSignal,
    /// Packages that a lock file pins, by their source.
    pub pins: BTreeMap<String, Package>,
    require_samples: bool,
}

impl Supplies {
    /// For a manifest that was loaded.
    pub(crate) fn of(
        loaded: &Loaded,
        places: &Places,
        purpose: Purpose,
        require_samples: bool,
    ) -> Result<Self, Failure> {
        let environment = Box::new(|name: &str| env::var_os(name).map(OsStringExt::into_vec));
        let secrets = Arc::new(match &loaded.manifest {
            Some(manifest) => Secrets::of(manifest, &loaded.sources, environment),
            None => Secrets::default(),
        });
        ui::redact(&secrets);
        let stop = StopSignal::new()?;
        let engines = Engines::new(&places.libexec);
        let named = loaded
            .manifest
            .iter()
            .any(|manifest| !manifest.sources.is_empty());
        let archives = match purpose {
            // The store is made when it is first needed.
            Purpose::Run if named => {
                let client = Client::new(proxy().as_deref()).map_err(Failure::host)?;
                let store = open_store(&places.store)?;
                Archives::to_run(
                    engines,
                    Arc::clone(&secrets),
                    stop.clone(),
                    store,
                    Box::new(client),
                    jiff::Timestamp::now().as_second(),
                )
            }
            _ => {
                let store = match named {
                    true => Store::open_existing(&places.store).map_err(|error| unusable(&error))?,
                    false => None,
                };
                Archives::to_look(engines, Arc::clone(&secrets), stop.clone(), store)
            }
        };
        Ok(Self {
            archives,
            secrets,
            stop,
            pins: BTreeMap::new(),
            require_samples,
        })
    }

    /// The same, as the planner takes it.
    pub(crate) fn supply(&self) -> Supply<'_> {
        Supply {
            reader: &self.archives,
            require_samples: self.require_samples,
            pins: &self.pins,
        }
    }
}

fn proxy() -> Option<String> {
    PROXIES
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}
