//! `unicorn/linux`: a Linux program over the emulated Linux, in `hotcell-unicorn`.

use std::collections::HashMap;

use hotcell_cells::intake::Bounds;
use hotcell_plan::Instance;
use hotcell_schema::deny::Deny;
use hotcell_schema::event::Header;
use hotcell_schema::internet::Internet;
use hotcell_schema::job::{GuestFile, Job, JobResult, LinuxJob, Watch};
use hotcell_schema::stage::{Engine, LinuxWith, NetworkMode};
use hotcell_schema::sysroot::Sysroot;
use hotcell_store::Stored;
use indexmap::IndexMap;

use super::cell::{self, Allowed, Blobs};
use super::{FilesPort, engine, only, profile, put_json, required, settings};
use crate::work::{Done, Inputs, Shared};

/// Where the program stands in the guest when the manifest does not say.
const PROGRAM: &str = "/tmp/sample";
/// Events a kernel may add when it meets its limit: the limit itself, and how each process ended.
const CLOSING_EVENTS: u64 = 1_000;

/// A job that is ready for a cell.
pub(super) struct Prepared {
    pub(super) job: Job,
    pub(super) blobs: Blobs,
    /// How its event stream begins.
    pub(super) header: Header,
}

/// Puts a job together out of a stage's settings and inputs.
pub(super) fn prepare(
    shared: &Shared<'_>,
    instance: &Instance,
    inputs: &Inputs<'_>,
    with: LinuxWith,
) -> Result<Prepared, Done> {
    let guest = shared.limits(instance).guest;
    let arch = profile(shared, instance)?.clone();
    let persona = instance
        .persona
        .as_ref()
        .and_then(|name| shared.plan.personas.get(name))
        .cloned()
        .unwrap_or_default();
    let mut blobs = Blobs::default();
    let program = blobs.add(&shared.read(required(inputs, "file")?)?)?;
    let stdin = match only(inputs, "stdin") {
        Some(input) => Some(blobs.add(&shared.read(input)?)?),
        None => None,
    };
    let mut root = |name: &Option<String>| match name {
        Some(name) => {
            let root = shared.sysroots.get(shared, name)?;
            Ok(Some(Sysroot {
                index: blobs.share(&root.index)?,
                content: blobs.share(&root.content)?,
            }))
        }
        None => Ok::<_, Done>(None),
    };
    let sysroot = root(&instance.sysroot)?;
    let web = root(&instance.web)?;
    let internet = (with.network == NetworkMode::Sink).then(|| Internet {
        with: with.internet.unwrap_or_default(),
        web,
    });
    let mut files = Vec::new();
    for (path, text) in &with.files {
        files.push(GuestFile {
            path: path.clone(),
            mode: 0o644,
            content: blobs.add(text.as_bytes())?,
        });
    }
    let path = with.path.unwrap_or_else(|| PROGRAM.to_owned());
    let argv0 = with.argv0.unwrap_or_else(|| path.clone());
    let job = Job::Linux(Box::new(LinuxJob {
        cell: instance.name.clone(),
        arch: arch.clone(),
        native: engine(instance) == Some(Engine::Native),
        persona,
        program,
        path,
        argv: std::iter::once(argv0).chain(with.args).collect(),
        env: with.env,
        cwd: with.cwd,
        sysroot,
        internet,
        files,
        stdin,
        seed: instance.seed,
        watch: Watch {
            coverage: with.coverage,
            library_calls: with.library_calls,
            dump: with.dump,
        },
        deny: Deny::default(),
        limits: guest,
    }));
    Ok(Prepared {
        job,
        blobs,
        header: Header::new(instance.name.as_str(), instance.uses.as_str(), arch.name.as_str()),
    })
}

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let prepared = prepare(shared, instance, inputs, settings(instance)?)?;
    let guest = shared.limits(instance).guest;
    let bounds = Bounds {
        events: guest.events.saturating_add(CLOSING_EVENTS),
        // Files, standard output, and what went over the network.
        // Layers, dumps, coverage and texts are bounded by the kernel: 64, 256, 16 and 8 MiB.
        output_bytes: guest.file_bytes.saturating_mul(2).saturating_add(512 << 20),
        // Each left file is an output; the kernel keeps at most 200,000.
        outputs: 250_000,
        ..Bounds::default()
    };
    let allowed = Allowed {
        ports: &[
            "stdout", "stderr", "pcap", "strings", "files", "layers", "dumps", "coverage",
        ],
        header: Some(&prepared.header),
        bounds,
    };
    let finished = cell::run(
        shared,
        instance,
        &prepared.job,
        &prepared.blobs,
        &allowed,
        &mut cell::Watch::Engine,
    )?;
    outputs(shared, finished, &["stdout", "stderr", "pcap", "strings"])
}

/// Checks that what a cell names is what it handed over, and stores its result. `texts`: ports that are one file each.
pub(super) fn outputs(shared: &Shared<'_>, finished: cell::Finished, texts: &[&str]) -> Result<Done, Done> {
    let JobResult::Linux(result) = finished.result else {
        return Err(finished.known.wrong_result(finished.done));
    };
    let given: HashMap<_, Stored> = finished
        .kept
        .outputs
        .iter()
        .map(|(port, stored)| ((port.as_str(), stored.digest), *stored))
        .collect();
    let mut objects = Vec::new();
    for (port, files) in result.ports() {
        for file in files {
            match given.get(&(port, file.digest)) {
                Some(stored) if stored.length == file.length => objects.push(*stored),
                _ => {
                    let why = format!("it names a left file {} that it did not hand over", file.digest);
                    return Err(finished.known.lied(finished.done, why));
                }
            }
        }
    }
    objects.sort_by_key(|stored| stored.digest);
    objects.dedup();
    let mut outputs = IndexMap::new();
    if let Some(events) = finished.kept.events {
        outputs.insert("events".to_owned(), events);
    }
    outputs.insert("result".to_owned(), put_json(shared, &result)?);
    for port in texts {
        let stored = match finished.kept.output(port) {
            Some(stored) => stored,
            None => shared.options.store.put(b"").map_err(crate::work::store_failed)?,
        };
        outputs.insert((*port).to_owned(), stored);
    }
    for (port, files) in result.ports() {
        let files = FilesPort::new(files.to_vec());
        outputs.insert(port.to_owned(), put_json(shared, &files)?);
    }
    Ok(Done {
        outputs,
        objects,
        ..finished.done
    })
}
