//! Debian's programs on every architecture, here and under other emulators: `cargo run -p xtask --features conformance --
//! conformance FOLDER [--accept] [--only PATTERN]`.
//!
//! In: FOLDER with the executables; `tests/conformance/`, whose manifest hotcell runs, which fetches the packages; what the
//! programs must say, in `expected/`. Out: `tests/conformance/CONFORMANCE.md`. With `--accept`, `expected/` is written anew by
//! this host's own processor, which must be an x86_64. With `--only`, a part runs (the pattern is that of `hotcell run`), and its page goes
//! to standard output. What others said is kept in the cache, by all that it depends on.
//!
//! | module | does |
//! |---|---|
//! | [`ours`] | the manifest's run: what there is to run, and how it went under hotcell |
//! | [`roots`] | the same packages as folders |
//! | [`others`] | one program in a machine of namespaces: natively, under qemu-user, under Qiling |
//! | [`verdict`] | what a program said, beside what it must say |
//! | [`table`] | verdicts as a page |

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::{Failure, cache_folder};
use others::{Engine, Machines};
use ours::{Case, Ours};
use table::{Cell, Page};
use verdict::{Said, Verdict};

mod others;
mod ours;
mod roots;
mod table;
mod verdict;

const USAGE: &str = "usage: conformance FOLDER [--accept] [--only PATTERN], where FOLDER has the executables (target/release)";
/// Debian's name of the architecture whose own processor says what is expected, of each suite.
const NATIVE: &str = "amd64";

pub(crate) fn run(project: &Path, arguments: &[String]) -> Result<(), Failure> {
    let (mut folder, mut accept, mut only) = (None, false, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--accept" => accept = true,
            "--only" => only = Some(words.next().ok_or(USAGE)?.as_str()),
            _ if word.starts_with('-') || folder.is_some() => return Err(USAGE.into()),
            _ => folder = Some(word),
        }
    }
    let folder = folder.ok_or(USAGE)?;
    let home = cache_folder()?;
    let place = project.join("tests/conformance");
    let ours = ours::run(&project.join(folder), &place, &home, only)?;
    let roots = roots::unpack(&ours, &home)?;
    let machines = Machines::new(&place, &roots, home.join("conformance"))?;
    if accept {
        accept_native(&place, &ours, &machines)?;
    }
    let mut page = Page::new(&ours);
    for case in &ours.cases {
        let verdict = judge(&place, case, &case.said)?;
        page.add(Cell::new("hotcell", case, verdict));
    }
    for (name, about, engine) in engines(&home) {
        page.about(name, about);
        let cells = match engine {
            Ok(engine) => all(&place, &ours, &machines, &engine, name)?,
            Err(why) => {
                let absent = |case| Cell::new(name, case, Verdict::NotRun(why.clone()));
                ours.cases.iter().map(absent).collect()
            }
        };
        cells.into_iter().for_each(|cell| page.add(cell));
    }
    if only.is_some() {
        println!("{}", page.text());
        return Ok(());
    }
    let to = place.join("CONFORMANCE.md");
    fs::write(&to, page.text())?;
    eprintln!("conformance: {}", to.display());
    Ok(())
}

/// The other emulators: name, version, and whether this host has them.
fn engines(home: &Path) -> [(&'static str, String, Result<Engine, String>); 2] {
    let (qemu, version) = others::qemu();
    let qiling = others::qiling(home);
    [
        ("qemu-user", version, qemu),
        ("Qiling", format!("Qiling {}", crate::python::QILING), qiling),
    ]
}

/// What a program said beside what it must say.
fn judge(place: &Path, case: &Case, said: &Said) -> Result<Verdict, Failure> {
    let path = expected(place, case);
    let wanted = fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}; `--accept` writes it, on an x86_64", path.display()))?;
    Ok(verdict::judge(&wanted, said))
}

fn expected(place: &Path, case: &Case) -> PathBuf {
    let folder = place.join("expected").join(&case.suite);
    folder.join(format!("{}.txt", case.program))
}

/// Every case under one engine, as many at once as there are processors.
fn all(
    place: &Path,
    ours: &Ours,
    machines: &Machines<'_>,
    engine: &Engine,
    name: &'static str,
) -> Result<Vec<Cell>, Failure> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Said, String>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = ours.cases.get(at) else { return };
                    let said = machines.run(engine, case).map_err(|error| error.to_string());
                    if let Ok(mut done) = done.lock() {
                        done.push((at, said));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|_| "a thread panicked")?;
    done.sort_by_key(|(at, _)| *at);
    let mut cells = Vec::new();
    for (at, said) in done {
        let case = ours.cases.get(at).ok_or("a case that is not there")?;
        let verdict = match said {
            Ok(said) => judge(place, case, &said)?,
            Err(why) => Verdict::NotRun(why),
        };
        cells.push(Cell::new(name, case, verdict));
    }
    Ok(cells)
}

/// Writes what this host's own processor says.
fn accept_native(place: &Path, ours: &Ours, machines: &Machines<'_>) -> Result<(), Failure> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("what is expected is said by an x86_64, and this host is none".into());
    }
    for case in ours.cases.iter().filter(|case| case.native) {
        let said = machines.run(&Engine::Native, case)?;
        if said.ended != "exited 0" {
            return Err(format!("{} natively: {}\n{}", case.program, said.ended, said.stderr).into());
        }
        fs::create_dir_all(place.join("expected").join(&case.suite))?;
        fs::write(expected(place, case), said.stdout)?;
    }
    Ok(())
}
