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

#[cfg(test)]
mod tests {
    use hotcell_schema::outcome::Status;
    use hotcell_schema::report::{InstanceReport, OutputReport};
    use indexmap::IndexMap;

    use super::*;

    #[test]
    fn a_folder_gives_what_the_report_names_and_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
        fs_err::create_dir_all(root.join("result/stages")).expect("writable");
        fs_err::write(root.join("secret"), "no").expect("writable");
        fs_err::write(root.join("result/stages/stdout"), "yes").expect("writable");
        let absolute = root.join("secret").into_string();
        let ports = [
            ("in", "stages/stdout"),
            ("gone", "stages/stderr"),
            ("out", "../secret"),
            ("absolute", absolute.as_str()),
        ];
        let outputs: IndexMap<String, OutputReport> = ports
            .iter()
            .map(|(port, path)| {
                let output = OutputReport {
                    path: (*path).into(),
                    digest: Digest::of(b"yes"),
                    length: 3,
                };
                ((*port).to_owned(), output)
            })
            .collect();
        let report = Report {
            instances: vec![InstanceReport {
                name: "run".into(),
                stage: "run".into(),
                uses: "unicorn/linux".into(),
                axes: IndexMap::new(),
                sample: None,
                arch: None,
                status: Status::Ok,
                reason: None,
                outcome: None,
                outputs,
                findings: Vec::new(),
                responses: Vec::new(),
                unsupported: Vec::new(),
                behaviour: Vec::new(),
            }],
            format: hotcell_schema::report::FORMAT.into(),
            version: hotcell_schema::report::VERSION,
            name: "x".into(),
            manifest: Digest::of(b"x"),
            seed: 0,
            hotcell: "0".into(),
            variants: Vec::new(),
            selection: None,
            engines: IndexMap::new(),
            samples: IndexMap::new(),
            attack: IndexMap::new(),
        };
        let found = Folder::new(root.join("result"), &report);
        let read = |port| found.read("run", port).expect("readable");
        assert_eq!(read("in").as_deref(), Some(&b"yes"[..]));
        for port in ["gone", "out", "absolute", "unknown"] {
            assert_eq!(read(port), None, "{port}");
        }
    }
}
