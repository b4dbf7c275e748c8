//! Samples by digest and by list: what is found, what is not, and what a damaged folder or a strange list means.
#![allow(clippy::unwrap_used)]

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_plan::{Loaded, Options, Plan, Profiles, load, plan};
use hotcell_schema::digest::Digest;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn planned(&self) -> (Loaded, Option<Plan>) {
        let mut loaded = load(&self.path("m.toml"), &Options::default());
        let planned = plan(&mut loaded, &Profiles::shipped());
        (loaded, planned)
    }
}

/// Code and whole text of each diagnostic.
fn told(loaded: &Loaded) -> Vec<(String, String)> {
    let each = loaded.diagnostics.iter();
    each.map(|problem| (problem.code.to_owned(), problem.plain(&loaded.sources)))
        .collect()
}

fn by_digest(digests: &[Digest]) -> String {
    let digests: Vec<String> = digests.iter().map(|digest| format!("\"{digest}\"")).collect();
    format!(
        "hotcell = 1\n[sources.vault]\nkind = \"folder\"\npath = \"vault\"\n[samples.all]\nsource = \"vault\"\ndigests = [{}]\n\
         [stages.look]\nuses = \"inspect/elf\"\nfor-each.sample = \"samples.all\"\nin.file = \"${{sample.file}}\"\n",
        digests.join(", ")
    )
}

/// Root reads every file, whatever its mode: a link that leads out cannot be taken by anyone.
#[test]
fn one_file_that_cannot_be_read_hides_no_other() {
    let folder = Folder::new();
    folder.write("vault/a", "one");
    folder.write("elsewhere", "two");
    std::os::unix::fs::symlink("../elsewhere", folder.path("vault/0-link")).unwrap();
    folder.write("m.toml", by_digest(&[Digest::of(b"one")]));
    let (loaded, planned) = folder.planned();
    assert_eq!(told(&loaded), [], "it was found: the link is nobody's business");
    assert_eq!(planned.unwrap().samples.len(), 1);

    folder.write("m.toml", by_digest(&[Digest::of(b"one"), Digest::of(b"two")]));
    let (loaded, planned) = folder.planned();
    assert!(planned.is_some());
    let told = told(&loaded);
    let codes: Vec<&str> = told.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["E0314", "E0303"], "{told:?}");
    assert!(told[1].1.contains("0-link"), "{}", told[1].1);
}

#[test]
fn lists_as_other_programs_write_them() {
    let folder = Folder::new();
    folder.write("a", "one");
    let digest = Digest::of(b"one").to_string();
    let manifest = |list: &str| {
        format!(
            "hotcell = 1\n[samples.all]\nlist = \"{list}\"\n[stages.look]\nuses = \"inspect/elf\"\n\
             for-each.sample = \"samples.all\"\nin.file = \"${{sample.file}}\"\n"
        )
    };
    let rows = [
        ("lf.csv", format!("path,sha256\na,{digest}\n")),
        ("upper.csv", format!("path,sha256\na,{}\n", digest.to_uppercase())),
        ("bom.csv", format!("\u{feff}path,sha256\r\na,{digest}\r\n")),
        ("quoted.csv", format!("\"path\",\"sha256\"\n\"a\",\"{digest}\"\n")),
        (
            "bom.jsonl",
            format!("\u{feff}{{\"path\": \"a\", \"sha256\": \"{digest}\"}}\n\n"),
        ),
    ];
    for (name, text) in rows {
        folder.write(name, text);
        folder.write("m.toml", manifest(name));
        let (loaded, planned) = folder.planned();
        assert_eq!(told(&loaded), [], "{name}");
        assert_eq!(planned.unwrap().samples.len(), 1, "{name}");
    }
    let wrong = [
        ("short.csv", "sha256\nabc\n".to_owned()),
        ("column.csv", "path,shaa256\na,b\n".to_owned()),
        ("nothing.csv", String::new()),
        ("ragged.csv", "path,sha256\na\n".to_owned()),
        ("nul.csv", "path\na\0b\n".to_owned()),
        ("out.csv", "path\n../../etc/passwd\n".to_owned()),
        ("long.csv", format!("path\n{}\n", "x".repeat(5000))),
        ("deep.jsonl", format!("{}\n", "[".repeat(10_000))),
        ("extra.jsonl", "{\"path\": \"a\", \"x\": 1}\n".to_owned()),
    ];
    for (name, text) in wrong {
        folder.write(name, text);
        folder.write("m.toml", manifest(name));
        let (loaded, planned) = folder.planned();
        assert!(planned.is_none() && !told(&loaded).is_empty(), "{name}");
        for (_, text) in told(&loaded) {
            assert!(
                text.len() < 20_000 && !text.contains('\0'),
                "{name}: {}",
                text.len()
            );
        }
    }
}

#[test]
fn a_list_of_a_hundred_thousand_rows() {
    let folder = Folder::new();
    let rows: String = (0..100_000u32)
        .map(|n| format!("{}\n", Digest::of(&n.to_le_bytes())))
        .collect();
    folder.write("m.csv", format!("sha256\n{rows}"));
    folder.write("vault/empty", "");
    folder.write(
        "m.toml",
        "hotcell = 1\n[sources.vault]\nkind = \"folder\"\npath = \"vault\"\n[samples.all]\nsource = \"vault\"\nlist = \"m.csv\"\n",
    );
    let (loaded, _) = folder.planned();
    let told = told(&loaded);
    assert!(
        told.len() <= 2 && told[0].1.contains("100000 of 100000"),
        "{} {:.300}",
        told.len(),
        told[0].1
    );
}
