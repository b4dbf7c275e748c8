//! Debian packages that need others: what is asked for, what a lock file says of it, and what people are told.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_plan::lock::{Tools, packages, pin};
use hotcell_plan::{
    Archive, Loaded, Options, Package, PackageFile, Plan, Profiles, SourceError, SourceReader, Supply,
    Wanted, load, plan_with,
};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{ArchiveIndex, ArchiveKind, ArchiveMember};

/// A mirror: what each of its packages needs. It keeps what it was asked: package, and whether with what it needs.
#[derive(Debug, Default)]
struct Mirror {
    needs: BTreeMap<String, Vec<String>>,
    asked: Mutex<Vec<(String, bool)>>,
}

impl Mirror {
    fn of(needs: &[(&str, &[&str])]) -> Self {
        let needs = needs.iter().map(|(name, needs)| {
            let needs = needs.iter().map(|name| (*name).to_owned());
            ((*name).to_owned(), needs.collect())
        });
        Self {
            needs: needs.collect(),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl SourceReader for Mirror {
    fn index(&self, archive: &Archive, _: Option<&Utf8Path>) -> Result<Arc<ArchiveIndex>, SourceError> {
        let member = ArchiveMember {
            number: 0,
            name: format!("bin/{}", archive.name),
            digest: archive.digest,
            length: 1,
            mode: 0o755,
            head: Default::default(),
        };
        Ok(Arc::new(ArchiveIndex {
            format: ArchiveIndex::FORMAT.into(),
            version: ArchiveIndex::VERSION,
            kind: ArchiveKind::Debian,
            members: vec![member],
            links: Vec::new(),
            folders: Vec::new(),
            alternatives: Vec::new(),
        }))
    }

    fn package(&self, wanted: &Wanted<'_>) -> Result<Package, SourceError> {
        let name = wanted.package.to_owned();
        self.asked.lock().unwrap().push((name.clone(), wanted.needs));
        let needs = self.needs.get(&name).cloned();
        let needs = needs.ok_or_else(|| SourceError::NotThere("it is nowhere".into()))?;
        let digest = Digest::of(name.as_bytes());
        let file = PackageFile {
            name: format!("{name}.deb"),
            digest,
            length: 1,
        };
        Ok(Package {
            version: "1".into(),
            arch: "armhf".into(),
            url: format!("http://mirror/{name}.deb"),
            sha256: digest,
            files: vec![file],
            needs: wanted.needs.then_some(needs),
            name,
        })
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn of(packages: &str, more: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let text = format!(
            "hotcell = 1\n[sources.root]\nkind = \"debian\"\npackages = {packages}\n{more}\narch = \"armhf\"\n[samples.all]\n\
             source = \"root\"\nglob = \"bin/*\"\n[stages.look]\nuses = \"inspect/elf\"\nfor-each.sample = \"samples.all\"\n\
             in.file = \"${{sample.file}}\"\n"
        );
        fs::write(folder.path(), text).unwrap();
        folder
    }

    fn path(&self) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join("m.toml")
    }

    fn plan(&self, mirror: &Mirror, pins: &BTreeMap<String, Package>) -> (Loaded, Option<Plan>) {
        let mut loaded = load(&self.path(), &Options::default());
        let supply = Supply {
            reader: mirror,
            pins,
            ..Supply::default()
        };
        let plan = plan_with(&mut loaded, &Profiles::shipped(), &supply);
        (loaded, plan)
    }

    /// What is told when it cannot be planned.
    fn problems(&self, mirror: &Mirror) -> String {
        let (loaded, plan) = self.plan(mirror, &BTreeMap::new());
        assert!(plan.is_none());
        let lines = loaded.diagnostics.iter();
        lines.map(|problem| problem.plain(&loaded.sources)).collect()
    }
}

fn asked(names: &[&str], needs: bool) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), needs)).collect()
}

#[test]
fn what_packages_need_comes_with_them_and_is_pinned() {
    // They need each other, too.
    let mirror = Mirror::of(&[
        ("sh", &["libc", "tools"]),
        ("libc", &["gcc"]),
        ("gcc", &["libc"]),
        ("tools", &["libc"]),
    ]);
    let folder = Folder::of("[\"sh\"]", "dependencies = true");
    let (_, plan) = folder.plan(&mirror, &BTreeMap::new());
    let plan = plan.unwrap();
    assert_eq!(mirror.asked(), asked(&["sh", "libc", "tools", "gcc"], true));
    let names: Vec<&str> = plan.packages.keys().map(String::as_str).collect();
    assert_eq!(names, ["root/gcc", "root/libc", "root/sh", "root/tools"]);
    assert_eq!(plan.samples.len(), 4);

    // A lock file says what each needs: the mirror is asked for these and nothing else.
    let tools = Tools {
        hotcell: "1",
        engines: &[],
        programs: &BTreeMap::new(),
        profiles: &[],
        documents: &[],
    };
    let lock = pin(&plan, &tools);
    assert!(
        lock.packages["root/sh"].ends_with("/sh.deb needs=libc,tools"),
        "{lock:?}"
    );
    let pins = packages(&lock);
    let (_, again) = folder.plan(&mirror, &pins);
    let again = again.unwrap();
    assert_eq!(mirror.asked(), asked(&["sh", "libc", "tools", "gcc"], false));
    assert_eq!(again.packages, plan.packages);
    assert_eq!(pin(&again, &tools), lock);

    // Of one that was pinned before anybody asked, it is not known.
    let mut older = pins;
    older.get_mut("root/libc").unwrap().needs = None;
    folder.plan(&mirror, &older).1.unwrap();
    let mut wanted = asked(&["sh", "libc", "tools", "gcc"], false);
    wanted[1].1 = true;
    assert_eq!(mirror.asked(), wanted);

    // Without the key a package comes alone.
    let alone = Folder::of("[\"sh\"]", "")
        .plan(&mirror, &BTreeMap::new())
        .1
        .unwrap();
    assert_eq!(mirror.asked(), asked(&["sh"], false));
    assert_eq!(alone.packages["root/sh"].needs, None);
}

#[test]
fn who_needs_what_is_not_there_is_told() {
    let mirror = Mirror::of(&[("sh", &["libc"]), ("libc", &["gone"])]);
    let folder = Folder::of("[\"sh\"]", "dependencies = true");
    let text = folder.problems(&mirror);
    assert!(
        text.contains("E0312") && text.contains("the package gone of stable, which `libc` needs"),
        "{text}"
    );
}

#[test]
fn what_is_needed_is_bounded() {
    // Each needs the next.
    let names: Vec<String> = (0..300).map(|index| format!("p{index}")).collect();
    let pairs = names
        .iter()
        .zip(names.iter().skip(1).map(|name| vec![name.clone()]));
    let mirror = Mirror {
        needs: pairs.map(|(name, needs)| (name.clone(), needs)).collect(),
        asked: Mutex::default(),
    };
    let text = Folder::of("[\"p0\"]", "dependencies = true").problems(&mirror);
    assert!(
        text.contains("need more than 256 others") && text.contains("`p257`, which `p256` needs"),
        "{text}"
    );
    assert_eq!(mirror.asked().len(), 257);
}

#[test]
fn a_single_package_comes_alone() {
    let folder = Folder::of("[\"sh\"]", "dependencies = true");
    let text = fs::read_to_string(folder.path()).unwrap();
    fs::write(
        folder.path(),
        text.replace("packages = [\"sh\"]", "package = \"sh\""),
    )
    .unwrap();
    let text = folder.problems(&Mirror::of(&[("sh", &[])]));
    assert!(
        text.contains("`dependencies` has no meaning for the source `root`"),
        "{text}"
    );
}
