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
    LazyLock::new(|| jsonschema::validator_for(&schemas::filled_manifest()).unwrap());
/// The schema for editors, which takes a text with `${}` for everything.
static PUBLISHED: LazyLock<jsonschema::Validator> =
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
        command_settings(),
    ]
}

/// Settings of a command: rightly used, and each key with any value.
fn command_settings() -> impl Strategy<Value = (&'static str, Json)> {
    let names = prop::sample::select(vec![
        "", "A", "a", "a-1", "a_1", "A=B", "a.b", "a\u{0}", "-a", "x/y",
    ]);
    let output = prop_oneof![
        Just(json!({})),
        Just(json!({"type": "json", "from": "stdout"})),
        Just(json!({"type": "files", "optional": true})),
        Just(json!({"type": "anything"})),
        value(),
    ];
    let key = prop_oneof![
        prop::collection::vec(prop::sample::select(vec!["true", "x", "--a=b"]), 0..3)
            .prop_map(|run| ("run", json!(run))),
        prop::collection::btree_map(
            names.clone(),
            prop_oneof![Just(json!("x")), Just(json!({"secret": "s"})), value()],
            0..3
        )
        .prop_map(|env| ("env", json!(env))),
        prop::collection::btree_map(names, output, 0..3).prop_map(|outputs| ("outputs", json!(outputs))),
        (
            prop::sample::select(vec![
                "run", "files", "env", "stdin", "success", "outputs", "observed", "rum"
            ]),
            value()
        ),
    ];
    (any::<bool>(), prop::collection::vec(key, 0..3)).prop_map(|(whole, keys)| {
        let mut with = json!({});
        if whole {
            with["run"] = json!(["true"]);
        }
        for (key, value) in keys {
            with[key] = value;
        }
        ("command", with)
    })
}

/// Mistakes of these codes are about what values mean, not about their form.
const MEANING: &[&str] = &[
    "E0009", "E0110", "E0203", "E0205", "E0210", "E0211", "E0302", "E0306", "E0401", "E0403", "E0901",
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
            "detect/rules" => serde_json::from_value::<hotcell_schema::stage::RulesWith>(with.clone()).is_ok(),
            // Its names and its program are bound by more than a type: the whole way, below, says it.
            _ => schema_accepts && serde_json::from_value::<hotcell_schema::command::CommandWith>(with.clone()).is_ok(),
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

/// Every key of the language, rightly used.
fn complete() -> Vec<Json> {
    vec![
        json!({
            "hotcell": 1, "kind": "experiment", "name": "bots-2026", "about": "x", "seed": 7,
            "vars": {"a": 1, "b_c": ["x", {"y": null}]},
            "sources": {"vault": {"kind": "folder", "path": "x"}, "zip": {"kind": "archive", "path": "*.zip", "password": {"secret": "pw"}},
                "deb": {"kind": "debian", "package": "busybox-static"}},
            "samples": {"bots": {"list": "corpus.csv", "source": "vault", "family": "f", "variant": "v", "label": "l"},
                "clean": {"glob": "benign/*"},
                "few": {"digests": ["0000000000000000000000000000000000000000000000000000000000000000"], "source": "vault"}},
            "rules": {"behaviour": ["*.toml"], "sigma": ["*.yml"], "yara": ["*.yar"]},
            "stages": {
                "look": {"uses": "inspect/elf", "for-each": {"sample": "samples.bots"}, "in": {"file": "${sample.file}"},
                    "with": {"max-strings": 5, "disassemble": true}},
                "run": {"uses": "unicorn/linux", "for-each": {"sample": {"over": ["samples.bots", "samples.clean"]}, "n": [1, 2.5, "x", true, {"name": "y"}]},
                    "in": {"file": "${sample.file}", "stdin": ["stages.look.out.info"]}, "needs": ["look"], "when": "n == 1",
                    "with": {"args": ["a"], "persona": "router", "files": {"/a": "b"}, "env": {"A": "b"}, "network": "none", "arch": "x86"},
                    "limits": {"virtual-time": "60s", "events": 5, "syscalls": 5, "instructions": 5, "memory": "64MiB", "tasks": 3,
                        "file-bytes": "1GiB", "wall": "5m", "cpu": "100ms"}, "retries": 2, "max-items": 8,
                    "cores": {"count": 2, "exclusive": true, "core": 3, "priority": "low"}},
                "code": {"uses": "unicorn/payload", "with": {"arch": "x86", "code": "90 90", "address": "0x1000", "trace": 5,
                    "registers": {"eax": "0x1"}, "memory": [{"address": "0x2000", "bytes": "00"}], "want-registers": ["eax"],
                    "want-memory": [{"address": "0x2000", "length": 4}]}},
                "own": {"uses": "command", "for-each": {"b": [1], "a": ["x"]}, "in": {"a_b-1": "stages.code.out.result", "c": ["stages.code.out.result"]},
                    "with": {"run": ["true", "${a}"], "files": ["x"], "env": {"A.B": "x", "T": {"secret": "pw"}}, "stdin": "c", "success": [0, 1],
                        "outputs": {"table": {"type": "json", "schema": "s.json", "from": "stdout", "optional": true}}, "observed": true}},
                "hits": {"uses": "detect/rules", "in": {"events": "stages.run[*].out.events"}, "with": {"rules": ["*.toml"]}},
            },
            "expect": [{"where": "stage == 'run'", "stage": "run", "hits": {"all": ["a"], "none": ["b"], "any": ["c"], "severity-below": "medium"},
                "outcome": "exited 0", "behaviour": {"present": ["x"], "absent": ["y"]}, "stdout": {"equals": "x", "contains": ["y"]}}],
            "golden": {"select": ["findings", "behaviour"], "stages": ["run"]},
            "variants": {"ci": {"seed": 8}},
            "secrets": {"pw": {"env": "PW"}, "other": {"file": "x"}, "third": {"command": ["x"]}},
        }),
        json!({
            "hotcell": 1, "kind": "host",
            "cores": {"control": 0, "chores": 1, "pool": "2-15", "slice": "10ms", "exclusive-max": "50%", "isolation": "cpuset", "real-time": "try", "on-small-host": "share"},
            "users": {"ci": {"role": "user", "uid": 1501, "quota": {"cells": 8, "exclusive-cores": 2, "memory": "16GiB"}}, "soc": {"role": "admin", "uid": 1500}},
            "engines": {"allow": ["unicorn/linux"]},
            "images": {"a": {"build": "debian", "arch": "aarch64", "layers": ["base"]}, "b": {"path": "x.qcow2", "arch": "x86"}},
            "networks": {"n": {"backend": "libvirt", "mode": "isolated", "subnet": "10.66.2.0/24"}},
            "templates": {"t": {"kind": "virt", "arch": "aarch64", "image": "a", "memory": "2GiB", "vcpus": 2, "network": "n", "with": {"x": 1}}},
        }),
    ]
}

/// What takes the place of a value.
fn other() -> impl Strategy<Value = Json> {
    let numbers = [
        -1i64,
        0,
        1,
        2,
        10,
        11,
        255,
        256,
        100_000,
        100_001,
        4_294_967_295,
        4_294_967_296,
        i64::MAX,
        i64::MIN,
    ];
    let texts = [
        "",
        "a",
        "A",
        "a-b",
        "a_b",
        "1a",
        "60s",
        "60",
        "1.5s",
        "999999999h",
        "64MiB",
        "64MB",
        "none",
        "medium",
        "findings",
        "folder",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0x10",
        "90",
        "9",
        "samples.bots",
        "${x}",
        "user",
        "é",
        "99999999999999999999s",
        "000000000000000000000000001s",
        "unicorn/linux",
        "exited 3",
        "exited 256",
        "signalled SIGSEGV",
        "signalled SIGX",
        "limit events",
        "2-15,17",
        "2..15",
        "50%",
        "101%",
    ];
    prop_oneof![
        prop::sample::select(numbers.to_vec()).prop_map(Json::from),
        prop::sample::select(texts.to_vec()).prop_map(Json::from),
        prop::sample::select(vec![0.0, 1.0, -1.0, 1.5, 2e9, 1e10, 1e19, 1e300]).prop_map(Json::from),
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!([1]),
            json!(["a"]),
            json!([null]),
            json!([[]]),
            json!({"a": 1}),
            json!({"over": []}),
            json!({"over": ["a"]}),
            json!({"secret": "a"}),
            json!([{"name": "a"}])
        ]),
    ]
}

/// Keys that take the place of others, or come beside them.
const KEYS: &[&str] = &[
    "x",
    "A",
    "a_b",
    "a-b",
    "uses",
    "in",
    "file",
    "events",
    "with",
    "kind",
    "name",
    "glob",
    "max-items",
    "max-depth",
    "wall",
    "1",
    "",
];

/// Changes one place of a document; `step` says where, by the order in which they are met.
fn change(node: &mut Json, step: &mut usize, how: usize, value: &Json, key: &str) -> bool {
    let here = *step == 0;
    *step = step.saturating_sub(1);
    match node {
        Json::Object(table) => {
            if here && !table.contains_key("hotcell") {
                let names: Vec<String> = table.keys().cloned().collect();
                let chosen = names
                    .get(how / 4 % names.len().max(1))
                    .cloned()
                    .unwrap_or_default();
                match how % 4 {
                    0 => _ = table.insert(key.into(), value.clone()),
                    1 => _ = table.shift_remove(&chosen),
                    2 => {
                        if let Some(moved) = table.shift_remove(&chosen) {
                            table.insert(key.into(), moved);
                        }
                    }
                    _ => *node = value.clone(),
                }
                return true;
            }
            table
                .iter_mut()
                .any(|(name, inner)| name != "hotcell" && change(inner, step, how, value, key))
        }
        _ if here => {
            *node = value.clone();
            true
        }
        Json::Array(list) => list.iter_mut().any(|inner| change(inner, step, how, value, key)),
        _ => false,
    }
}

#[test]
fn complete_documents_are_right() {
    for document in complete() {
        let told: Vec<String> = VALIDATOR
            .iter_errors(&document)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(told.is_empty(), "{told:?}");
        let loaded = load_text("m.yaml".as_ref(), &document.to_string(), &Options::default());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The schema and the reader accept the same documents, whatever was changed in them.
    #[test]
    fn schema_and_reader_accept_the_same_documents(
        which in 0usize..2,
        changes in prop::collection::vec((0usize..130, 0usize..64, other(), prop::sample::select(KEYS.to_vec())), 1..3),
    ) {
        let mut document = complete().swap_remove(which);
        for (mut step, how, value, key) in changes {
            change(&mut document, &mut step, how, &value, key);
        }
        let accepts = VALIDATOR.is_valid(&document);
        let loaded = load_text("m.yaml".as_ref(), &document.to_string(), &Options::default());
        let told: Vec<String> = loaded.diagnostics.iter().map(|problem| problem.plain(&loaded.sources)).collect();
        prop_assert_eq!(!loaded.has_errors(), accepts, "{}\n{}", document, told.join("\n"));
        prop_assert!(!accepts || PUBLISHED.is_valid(&document), "editors refuse {}", document);
    }
}

#[test]
fn editors_take_variables_where_values_are_wanted() {
    let document = json!({
        "hotcell": 1, "seed": "${vars.seed}", "name": "${vars.name}",
        "samples": {"bots": {"digests": ["${vars.digest}"], "glob": "${vars.glob}"}},
        "stages": {"a": {"uses": "${vars.engine}", "for-each": {"n": "${vars.ns}"}, "retries": "${vars.retries}",
            "limits": {"events": "${vars.events}", "wall": "${vars.wall}"}, "with": {"trace": "${vars.trace}"}}},
        "golden": {"select": ["${vars.part}"]},
    });
    assert!(PUBLISHED.is_valid(&document));
    // Outside of settings nothing but variables is filled in; and what a document is, and which parts it has, is written out.
    for wrong in [
        json!({"hotcell": 1, "seed": "${round}"}),
        json!({"hotcell": 1, "kind": "${vars.k}"}),
        json!({"hotcell": 1, "stages": "${vars.s}"}),
    ] {
        assert!(!PUBLISHED.is_valid(&wrong), "{wrong}");
        let text = wrong
            .to_string()
            .replacen('{', "{\"vars\": {\"k\": \"host\", \"s\": {}}, ", 1);
        let loaded = load_text("m.yaml".as_ref(), &text, &Options::default());
        assert!(loaded.has_errors(), "{wrong}");
    }
    // What is no `${}` is as strict as ever.
    let wrong = json!({"hotcell": 1, "seed": "seven"});
    assert!(!PUBLISHED.is_valid(&wrong));
    // After variables are filled in, nothing is left open but settings.
    assert!(!VALIDATOR.is_valid(&document));
}
