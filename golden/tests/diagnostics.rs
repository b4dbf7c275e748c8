//! What people are told about broken manifests: each document in `broken/` has a snapshot.

use camino::Utf8Path;
use hotcell_plan::{Options, Profiles, load, plan};

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
        let mut loaded = load(Utf8Path::new(name), &Options::default());
        let planned = plan(&mut loaded, &profiles);
        assert!(planned.is_none() && loaded.has_errors(), "{name} is not broken");
        let told: Vec<String> = loaded
            .diagnostics
            .iter()
            .map(|problem| problem.plain(&loaded.sources))
            .collect();
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!(told.join("\n\n"));
        });
    });
}
