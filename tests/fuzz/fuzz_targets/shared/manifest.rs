//! A manifest the whole way: read, checked, planned, rendered and written again. Run from an empty folder, so that no glob
//! finds anything. `runner/plan/tests/fuzzed.rs` runs the corpus through it too.
//!
//! What must hold: no panic; what is refused has a reason; every place lies within its text; the same text gives the same plan
//! and the same diagnostics; what `fmt` writes means the same and stays as it is.

use std::sync::LazyLock;

use hotcell_plan::format::{Language, format};
use hotcell_plan::{Options, Profiles, Sources, diagnostics, host, load_text, plan};

static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("hotcell-fuzz-nowhere");
    std::fs::create_dir_all(&folder).expect("an empty folder");
    std::env::set_current_dir(&folder).expect("an empty folder");
    Profiles::shipped()
});

pub(crate) fn whole(name: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // The first line may ask for a variant or set a value.
    let mut options = Options::default();
    if let Some((first, _)) = text.split_once('\n') {
        if let Some(set) = first.strip_prefix("# set: ") {
            options.set.push(set.to_owned());
        } else if let Some(variant) = first.strip_prefix("# variant: ") {
            options.variants.push(variant.to_owned());
        }
    }
    let (first, problems) = planned(name, &text, &options);
    let (second, again) = planned(name, &text, &options);
    assert_eq!(problems, again, "told otherwise the second time");
    assert_eq!(first, second, "planned otherwise the second time");
    formatted(name, &text);
}

/// The plan as JSON, and what was told.
fn planned(name: &str, text: &str, options: &Options) -> (Option<String>, Vec<String>) {
    let profiles = &*PROFILES;
    let mut json = None;
    let mut loaded = load_text(name.as_ref(), text, options);
    // A source may lead anywhere, and lists the whole disk when it is told to.
    let leads_out = loaded
        .manifest
        .as_ref()
        .is_some_and(|manifest| !manifest.sources.is_empty());
    if !leads_out {
        let was_host = host::check(&mut loaded, profiles).is_some();
        let planned = plan(&mut loaded, profiles);
        assert!(
            planned.is_some() || loaded.has_errors(),
            "refused without a reason"
        );
        assert!(!was_host || planned.is_none());
        json = planned.map(|plan| serde_json::to_string(&plan).expect("a plan is JSON"));
    }
    let mut told = Vec::new();
    for problem in &loaded.diagnostics {
        for label in &problem.labels {
            let source = loaded.sources.get(label.span.file).expect("a text that was read");
            let place = label.span.start as usize..label.span.end as usize;
            assert!(
                source.text.get(place).is_some(),
                "{label:?} is no place of its text"
            );
        }
        let plain = problem.plain(&loaded.sources);
        assert!(!plain.contains('\u{1b}'));
        told.push(plain);
    }
    diagnostics::for_programs(&loaded.diagnostics, &loaded.sources);
    (json, told)
}

fn formatted(name: &str, text: &str) {
    for to in [Language::Toml, Language::Yaml] {
        let mut sources = Sources::default();
        match format(name.as_ref(), text, Some(to), &mut sources) {
            Ok(written) => {
                let again = match to {
                    Language::Toml => "m.toml",
                    Language::Yaml => "m.yaml",
                };
                assert_eq!(
                    format(again.as_ref(), &written, None, &mut sources),
                    Ok(written),
                    "not the same the second time"
                );
            }
            Err(problems) => {
                let broken = problems.iter().any(|problem| {
                    problem.title == "the document would mean something else after it was written"
                });
                assert!(!broken, "not written as it was read");
            }
        }
    }
}
