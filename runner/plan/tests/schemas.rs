//! The committed schemas are those of the code, and say the same as the reader.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::LazyLock;

use camino::Utf8Path;
use hotcell_plan::{Options, Profiles, load_text, plan, schemas};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

#[test]
fn committed_schemas_are_up_to_date() {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema");
    for schema in schemas::all() {
        let path = folder.join(schema.file_name());
        let committed = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(
            committed == schema.text(),
            "{path} is out of date: run `make schema` and commit it"
        );
    }
}

static PROFILES: LazyLock<Profiles> = LazyLock::new(Profiles::shipped);
static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&schemas::manifest()).unwrap());

/// A value of some kind, for a setting.
fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Json::from),
        prop_oneof![
            Just(-1i64),
            Just(0),
            Just(1),
            Just(255),
            Just(256),
            Just(4_294_967_295),
            Just(4_294_967_296),
            any::<i64>()
        ]
        .prop_map(Json::from),
        prop_oneof![
            Just("".to_owned()),
            Just("x86".into()),
            Just("90 90".into()),
            Just("9".into()),
            Just("0x1000".into()),
            Just("0x".into()),
            Just("0x11112222333344445".into()),
            Just("none".into()),
            Just("sink".into()),
            Just("server".into()),
            Just("${1}".into()),
            "[a-z0-9]{0,4}",
        ]
        .prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map(
                prop_oneof![
                    Just("address".to_owned()),
                    Just("length".into()),
                    Just("bytes".into()),
                    Just("r0".into())
                ],
                inner,
                0..3
            )
            .prop_map(|table| json!(table)),
        ]
    })
}

/// Settings of a stage type: known and unknown keys with any value.
fn settings() -> impl Strategy<Value = (&'static str, Json)> {
    let of = |uses: &'static str, keys: &'static [&'static str]| {
        prop::collection::btree_map(prop::sample::select(keys).prop_map(str::to_owned), value(), 0..3)
            .prop_map(move |table| (uses, json!(table)))
    };
    prop_oneof![
        of("inspect/elf", &["max-strings", "disassemble", "max_strings"]),
        of(
            "unicorn/payload",
            &[
                "arch",
                "code",
                "address",
                "until",
                "registers",
                "memory",
                "want-registers",
                "want-memory",
                "trace"
            ]
        ),
        of(
            "unicorn/linux",
            &[
                "arch", "args", "argv0", "path", "env", "cwd", "persona", "files", "network", "nothing"
            ]
        ),
        of("detect/rules", &["rules"]),
    ]
}

/// Mistakes of these codes are about what values mean, not about their form.
const MEANING: &[&str] = &[
    "E0009", "E0205", "E0211", "E0302", "E0306", "E0401", "E0403", "E0901",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The schema and the typed reader accept the same settings. Settings with `${}` are the planner's to judge.
    #[test]
    fn schema_and_reader_accept_the_same_settings((uses, with) in settings()) {
        let mut stage = json!({"uses": uses, "with": with});
        if uses != "detect/rules" && uses != "unicorn/payload" {
            stage["for-each"] = json!({"sample": "samples.s"});
            stage["in"] = json!({"file": "${sample.file}"});
        }
        let document = json!({"hotcell": 1, "stages": {"x": stage}});
        let schema_accepts = VALIDATOR.is_valid(&document);
        let reader_accepts = match uses {
            "inspect/elf" => serde_json::from_value::<hotcell_schema::stage::InspectWith>(with.clone()).is_ok(),
            "unicorn/payload" => serde_json::from_value::<hotcell_schema::stage::PayloadWith>(with.clone()).is_ok(),
            "unicorn/linux" => serde_json::from_value::<hotcell_schema::stage::LinuxWith>(with.clone()).is_ok(),
            _ => serde_json::from_value::<hotcell_schema::stage::RulesWith>(with.clone()).is_ok(),
        };
        let open = with.to_string().contains("${");
        if open {
            prop_assert!(schema_accepts || !reader_accepts, "the schema refuses {with}");
        } else {
            prop_assert_eq!(schema_accepts, reader_accepts, "{}", with);
        }

        // The whole way, through YAML (of which JSON is a part), agrees and never panics.
        let samples = vec![("s".into(), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into())];
        let mut loaded = load_text("m.yaml".as_ref(), &document.to_string(), &Options { samples, ..Options::default() });
        let planned = plan(&mut loaded, &PROFILES);
        let form: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|problem| !MEANING.contains(&problem.code))
            .map(|problem| problem.plain(&loaded.sources))
            .collect();
        if !open {
            prop_assert_eq!(form.is_empty(), schema_accepts, "{:?} {:?}", form, planned.is_some());
        }
    }
}
