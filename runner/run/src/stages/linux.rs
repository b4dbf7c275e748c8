//! `unicorn/linux`: a Linux program over the emulated Linux, in `hotcell-unicorn`.

use std::collections::HashMap;

use hotcell_cells::intake::Bounds;
use hotcell_plan::Instance;
use hotcell_schema::deny::Deny;
use hotcell_schema::event::Header;
use hotcell_schema::internet::Internet;
use hotcell_schema::internet::NetworkMode;
use hotcell_schema::job::{GuestFile, Job, JobResult, LinuxJob, Watch};
use hotcell_schema::outcome::Status;
use hotcell_schema::stage::{Engine, LinuxWith};
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

impl Prepared {
    /// Whether its guest meets the simulated internet.
    pub(super) fn online(&self) -> bool {
        matches!(&self.job, Job::Linux(job) if job.internet.is_some())
    }
}

/// Puts a job together out of a stage's settings and inputs.
pub(super) fn prepare(
    shared: &Shared<'_>,
    instance: &Instance,
    inputs: &Inputs<'_>,
    with: LinuxWith,
) -> Result<Prepared, Done> {
    let guest = shared.limits(instance).guest;
    let file = shared.read(required(inputs, "file")?)?;
    if let (None, Some(why)) = (&instance.arch, runs_nowhere(&file)) {
        return Err(Done::without_outputs(Status::Refused, why));
    }
    let arch = profile(shared, instance)?.clone();
    let persona = instance
        .persona
        .as_ref()
        .and_then(|name| shared.plan.personas.get(name))
        .cloned()
        .unwrap_or_default();
    let mut blobs = Blobs::default();
    let program = blobs.add(&file)?;
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
            traced: None,
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

/// Why no architecture that anybody could name would make a file run, told from its first bytes (elf(5); the PE format's
/// specification, "MS-DOS Stub"; mach-o/loader.h and mach-o/fat.h).
fn runs_nowhere(file: &[u8]) -> Option<String> {
    let of = |what: &str| {
        Some(format!(
            "{what}: the Linux engines do not run it, `inspect/elf` looks at it"
        ))
    };
    match file {
        [] => Some("the file is empty".to_owned()),
        [b'M', b'Z', ..] => of("a program of DOS or Windows (it begins with `MZ`)"),
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => {
            of("a program of macOS (Mach-O)")
        }
        [0xca, 0xfe, 0xba, 0xbe, ..] => of("a program of macOS for several machines, or a Java class"),
        [0x7f, b'E', b'L', b'F', class, order, rest @ ..] => {
            // `e_machine` stands at 18.
            let machine = match (order, rest.get(12..14)) {
                (1, Some(&[low, high])) => u16::from_le_bytes([low, high]),
                (2, Some(&[high, low])) => u16::from_be_bytes([high, low]),
                _ => return Some("an ELF file that is cut off, or lies about its byte order".to_owned()),
            };
            let (bits, header) = if *class == 2 { (64, 64) } else { (32, 52) };
            if file.len() < header {
                return Some("an ELF file that is cut off within its header".to_owned());
            }
            let end = if *order == 1 { "little" } else { "big" };
            Some(format!(
                "an ELF file of machine {machine} ({bits} bits, {end}-endian; elf.h names machines, `EM_…`): there is no arch profile of it among those of `arch-profiles`, and `--profiles DIR` adds to them"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::runs_nowhere;

    #[test]
    fn what_no_architecture_would_run_is_told_by_what_it_is() {
        let why = |bytes: &[u8]| runs_nowhere(bytes).unwrap_or_default();
        assert_eq!(why(b""), "the file is empty");
        assert!(why(b"MZ\x90").contains("Windows"));
        assert!(why(b"\xcf\xfa\xed\xfe").contains("Mach-O"));
        let start = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x02\x01";
        let mut elf = [0; 64];
        elf[..20].copy_from_slice(&start);
        assert!(
            why(&elf).contains("machine 258 (64 bits, little-endian"),
            "{}",
            why(&elf)
        );
        elf[5] = 2;
        assert!(why(&elf).contains("machine 513 (64 bits, big-endian"));
        assert!(why(&elf[..19]).contains("cut off"));
        assert_eq!(runs_nowhere(b"#!/bin/sh\n"), None);
        assert_eq!(runs_nowhere(b"echo hi\n"), None);
    }
}
