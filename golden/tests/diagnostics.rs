//! What people are told about broken manifests: each document in `broken/` has a snapshot. A document's first lines may say
//! what is asked for beside it: `# variant: NAME`, `# set: KEY=VALUE`.

use camino::Utf8Path;
use hotcell_plan::{Options, Profiles, host, load, plan};
use hotcell_schema::manifest::Kind;

fn options(bytes: &[u8]) -> Options {
    let mut options = Options::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        if let Some(variant) = line.strip_prefix("# variant: ") {
            options.variants.push(variant.to_owned());
        } else if let Some(set) = line.strip_prefix("# set: ") {
            options.set.push(set.to_owned());
        } else {
            break;
        }
    }
    options
}

#[test]
fn broken_manifests() {
    // Paths in diagnostics are those that were given: from the folder of the documents, they are the same everywhere.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/broken"))
        .expect("the folder of broken documents");
    let profiles = Profiles::shipped();
    insta::glob!("../broken", "*.{toml,yaml}", |path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a UTF-8 name");
        let bytes = std::fs::read(path).expect("the document");
        let mut loaded = load(Utf8Path::new(name), &options(&bytes));
        let kind = loaded.manifest.as_ref().map(|manifest| manifest.kind);
        if kind == Some(Kind::Host) {
            host::check(&mut loaded, &profiles);
        } else {
            plan(&mut loaded, &profiles);
        }
        assert!(loaded.has_errors(), "{name} is not broken");
        let told: Vec<String> = loaded
            .diagnostics
            .iter()
            .map(|problem| problem.plain(&loaded.sources))
            .collect();
        // Nothing of a document may move a terminal's cursor or change its colour.
        let told = told.join("\n\n");
        assert!(
            told.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()),
            "{name}"
        );
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!(told);
        });
    });
}
