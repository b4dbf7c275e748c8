//! Where the bytes of ports come from.

use camino::Utf8PathBuf;
use hotcell_schema::digest::Digest;
use hotcell_schema::report::Report;
use std::collections::BTreeMap;
use std::io;

/// Access to what instances gave. Backed by the store while a run ends, by `result/` afterwards.
pub trait Outputs {
    /// The bytes of one port; `None` where the instance has no such output.
    fn read(&self, instance: &str, port: &str) -> io::Result<Option<Vec<u8>>>;

    /// A stored object, for instance a file that a sample left behind; `None` where it is not at hand.
    fn object(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let _ = digest;
        Ok(None)
    }
}

/// Any closure from instance and port to bytes will do.
impl<F> Outputs for F
where
    F: Fn(&str, &str) -> io::Result<Option<Vec<u8>>>,
{
    fn read(&self, instance: &str, port: &str) -> io::Result<Option<Vec<u8>>> {
        self(instance, port)
    }
}

/// The outputs of a finished run, read from its `result/` folder.
#[derive(Debug, Clone)]
pub struct Folder {
    paths: BTreeMap<(String, String), Utf8PathBuf>,
}

impl Folder {
    /// Reads from `result`, at the paths that `report` names. A path that would leave the folder is not followed.
    pub fn new(result: impl Into<Utf8PathBuf>, report: &Report) -> Self {
        let root = result.into();
        let mut paths = BTreeMap::new();
        for instance in &report.instances {
            for (port, output) in &instance.outputs {
                let inside = output
                    .path
                    .split('/')
                    .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\\'));
                if inside {
                    paths.insert((instance.name.clone(), port.clone()), root.join(&output.path));
                }
            }
        }
        Self { paths }
    }
}

impl Outputs for Folder {
    fn read(&self, instance: &str, port: &str) -> io::Result<Option<Vec<u8>>> {
        let key = (instance.to_owned(), port.to_owned());
        match self.paths.get(&key) {
            None => Ok(None),
            Some(path) => match fs_err::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

pub(crate) fn read(
    outputs: &dyn Outputs,
    instance: &str,
    port: &str,
) -> Result<Option<Vec<u8>>, crate::ReportError> {
    outputs
        .read(instance, port)
        .map_err(|source| crate::ReportError::Read {
            instance: instance.to_owned(),
            port: port.to_owned(),
            source,
        })
}
