//! A manifest the whole way: read, checked, planned, rendered and written again. Run from an empty folder, so that no glob
//! finds anything.

use std::sync::LazyLock;

use hotcell_plan::format::{Language, format};
use hotcell_plan::{Options, Profiles, Sources, diagnostics, host, load_text, plan};

static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("hotcell-fuzz-nowhere");
    std::fs::create_dir_all(&folder).expect("an empty folder");
    std::env::set_current_dir(&folder).expect("an empty folder");
    Profiles::shipped()
});

pub fn whole(name: &str, bytes: &[u8]) {
    let profiles = &*PROFILES;
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
    let mut loaded = load_text(name.as_ref(), &text, &options);
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
    }
    for problem in &loaded.diagnostics {
        let plain = problem.plain(&loaded.sources);
        assert!(!plain.contains('\u{1b}'));
    }
    diagnostics::for_programs(&loaded.diagnostics, &loaded.sources);
    for to in [Language::Toml, Language::Yaml] {
        let mut sources = Sources::default();
        match format(name.as_ref(), &text, Some(to), &mut sources) {
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
                let broken = problems
                    .iter()
                    .any(|problem| problem.title.contains("mean something else"));
                assert!(!broken, "not written as it was read");
            }
        }
    }
}
