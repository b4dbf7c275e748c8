//! What processors a host has: physical cores, their SMT siblings, and what was taken from the kernel's scheduler at boot.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use hotcell_schema::cores::{CoreSet, MAX_CORE};

use super::process::bind_this_thread;

/// Where the kernel tells of processors.
pub const SYSTEM: &str = "/sys/devices/system/cpu";

/// The host's processors could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file of the kernel cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the kernel holds no list of processors.
    #[error("{}: `{text}` is no list of processors", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// There is no processor that may be used.
    #[error("this process may use none of the host's processors")]
    None,
}

/// The processors that this process may use, by physical core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// A core's processors by its name, the smallest number among its siblings. Siblings that may not be used count too:
    /// what runs on them disturbs the core.
    cores: BTreeMap<u32, CoreSet>,
    /// Processors that may be used.
    usable: CoreSet,
    /// Processors that the kernel's scheduler leaves alone (`isolcpus=`).
    pub isolated: CoreSet,
    /// Processors without a timer tick where they run one thread only (`nohz_full=`).
    pub tickless: CoreSet,
}

impl Topology {
    /// Reads it from `system`, which is [`SYSTEM`] on a running host. `allowed` are the processors that this process may
    /// use (`sched_getaffinity(2)`).
    ///
    /// # Errors
    ///
    /// If a file cannot be read or understood, or no processor may be used.
    pub fn read(system: &Path, allowed: &CoreSet) -> Result<Self, TopologyError> {
        let online = list(&system.join("online"))?.ok_or(TopologyError::None)?;
        let usable = online.and(allowed);
        if usable.is_empty() {
            return Err(TopologyError::None);
        }
        let mut cores = BTreeMap::new();
        for cpu in usable.iter() {
            let path = system.join(format!("cpu{cpu}/topology/thread_siblings_list"));
            // Some virtual machines tell nothing of siblings: each processor is then a core.
            let siblings = list(&path)?.unwrap_or_default().and(&online);
            let siblings = siblings.or(&CoreSet::from_iter([cpu]));
            cores.insert(siblings.first().unwrap_or(cpu), siblings);
        }
        Ok(Self {
            cores,
            usable,
            isolated: list(&system.join("isolated"))?.unwrap_or_default(),
            tickless: list(&system.join("nohz_full"))?.unwrap_or_default(),
        })
    }

    /// Reads that of this host, and what this process may use: what was isolated at boot too.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn of_this_host() -> Result<Self, TopologyError> {
        let isolated = list(&Path::new(SYSTEM).join("isolated"))?.unwrap_or_default();
        let allowed = match isolated.is_empty() {
            true => affinity(),
            // Nobody begins on what was taken from the scheduler: whether we may go there is found by trying, with a thread
            // that is none of ours afterwards. The kernel leaves out what our cpuset forbids (sched_setaffinity(2)).
            false => std::thread::spawn(move || {
                let _ = bind_this_thread(&affinity()?.or(&isolated));
                affinity()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))),
        };
        let allowed = allowed.map_err(|source| TopologyError::Read {
            path: "/proc/self".into(),
            source,
        })?;
        Self::read(Path::new(SYSTEM), &allowed)
    }

    /// Names of the physical cores: of each the smallest number of a processor.
    pub fn cores(&self) -> CoreSet {
        self.cores.keys().copied().collect()
    }

    /// The name of the core that a processor belongs to.
    pub fn core_of(&self, cpu: u32) -> Option<u32> {
        let mut cores = self.cores.iter();
        cores.find_map(|(name, siblings)| siblings.contains(cpu).then_some(*name))
    }

    /// All processors of a core, whether they may be used or not.
    pub fn siblings(&self, core: u32) -> CoreSet {
        self.cores.get(&core).cloned().unwrap_or_default()
    }

    /// All processors that may be used.
    pub fn cpus(&self) -> &CoreSet {
        &self.usable
    }

    /// The processors of a core that may be used.
    pub fn usable(&self, core: u32) -> CoreSet {
        self.siblings(core).and(&self.usable)
    }
}

/// The processors that the calling thread may use.
fn affinity() -> io::Result<CoreSet> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let may = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| allowed.is_set(cpu).unwrap_or(false));
    Ok((0..=MAX_CORE).filter(may).collect())
}

/// A file that holds a list; `None` where it is not there.
fn list(path: &Path) -> Result<Option<CoreSet>, TopologyError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(TopologyError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    // Without `nohz_full=` some kernels say so in a word.
    if text.trim() == "(null)" {
        return Ok(Some(CoreSet::default()));
    }
    match text.parse() {
        Ok(set) => Ok(Some(set)),
        Err(_) => Err(TopologyError::List {
            path: path.to_owned(),
            text: text.trim().chars().take(80).collect(),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A host as its kernel tells of it: pairs of file and content.
    pub(crate) fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    /// A host with so many processors, in siblings of two where `smt` says so: n and n + half.
    pub(crate) fn plain(cpus: u32, smt: bool) -> Topology {
        let mut files = vec![("online".to_owned(), format!("0-{}\n", cpus - 1))];
        for cpu in 0..cpus {
            let siblings = match smt {
                true => format!("{},{}", cpu % (cpus / 2), cpu % (cpus / 2) + cpus / 2),
                false => cpu.to_string(),
            };
            files.push((format!("cpu{cpu}/topology/thread_siblings_list"), siblings));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        Topology::read(host(&files).path(), &(0..cpus).collect()).unwrap()
    }

    #[test]
    fn siblings_are_one_core() {
        let topology = plain(8, true);
        assert_eq!(topology.cores().to_string(), "0-3");
        assert_eq!(topology.siblings(1).to_string(), "1,5");
        assert_eq!(topology.core_of(6), Some(2));
        assert_eq!(topology.core_of(9), None);
    }

    #[test]
    fn what_may_not_be_used_is_no_core_but_a_sibling() {
        let folder = host(&[
            ("online", "0-3"),
            ("cpu0/topology/thread_siblings_list", "0,2"),
            ("cpu1/topology/thread_siblings_list", "1,3"),
            ("cpu2/topology/thread_siblings_list", "0,2"),
            ("isolated", "1\n"),
            ("nohz_full", "(null)\n"),
        ]);
        let topology = Topology::read(folder.path(), &"0,1,2".parse().unwrap()).unwrap();
        assert_eq!(topology.cores().to_string(), "0-1");
        assert_eq!(topology.siblings(1).to_string(), "1,3");
        assert_eq!(topology.usable(1).to_string(), "1");
        assert_eq!(topology.isolated.to_string(), "1");
        assert!(topology.tickless.is_empty());
    }

    #[test]
    fn a_host_without_a_topology_has_a_core_for_each_processor() {
        let folder = host(&[("online", "0-2")]);
        let topology = Topology::read(folder.path(), &"0-7".parse().unwrap()).unwrap();
        assert_eq!(topology.cores().to_string(), "0-2");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = host(&[("online", "zero")]);
        let error = Topology::read(folder.path(), &"0".parse().unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("online: `zero` is no list of processors"),
            "{error}"
        );
        let folder = host(&[("online", "0-1")]);
        let error = Topology::read(folder.path(), &"5".parse().unwrap()).unwrap_err();
        assert!(matches!(error, TopologyError::None));
    }

    #[test]
    fn this_host_can_be_read() {
        let allowed: CoreSet = (0..hotcell_schema::cores::MAX_CORE).collect();
        let topology = Topology::read(Path::new(SYSTEM), &allowed).unwrap();
        assert!(!topology.cores().is_empty());
    }
}
