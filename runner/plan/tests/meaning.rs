//! What a manifest means does not hang on where a word of it happens to stand: on the order of keys, on who overrides what, on
//! how long a text is.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_plan::{Loaded, Options, Plan, Profiles, Wire, load, load_text, plan};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = folder.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn path(&self, path: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join(path)
    }

    fn plan(&self, path: &str, set: &[&str]) -> Plan {
        let options = Options {
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            ..Options::default()
        };
        let mut loaded = load(&self.path(path), &options);
        let plan = plan(&mut loaded, &Profiles::shipped());
        plan.unwrap_or_else(|| panic!("{}", told(&loaded)))
    }
}

fn told(loaded: &Loaded) -> String {
    let each = loaded.diagnostics.iter();
    let lines: Vec<String> = each.map(|problem| problem.plain(&loaded.sources)).collect();
    lines.join("\n")
}

fn planned(text: &str) -> (Loaded, Option<Plan>) {
    let mut loaded = load_text("m.toml".as_ref(), text, &Options::default());
    let plan = plan(&mut loaded, &Profiles::shipped());
    (loaded, plan)
}

/// Names of the files that a stage takes along.
fn own(plan: &Plan, stage: &str) -> Vec<String> {
    let instance = &plan.instances[plan.stages[stage].first];
    let set = &plan.file_sets[instance.files.as_deref().unwrap()];
    set.files.iter().map(|file| file.name.clone()).collect()
}

#[test]
fn an_argument_is_no_pattern_of_files() {
    let folder = Folder::new(&[
        (
            "m.toml",
            "hotcell = 1\n[stages.a]\nuses = \"command\"\nwith.run = [\"./a.sh\", \"*.txt\"]\n\
             [stages.b]\nuses = \"command\"\nwith = { run = [\"./a.sh\"], files = [\"*.txt\"] }\n\
             [stages.c]\nuses = \"command\"\nwith = { run = [\"./a.sh\"], outputs.x = { type = \"json\", schema = \"s.json\" } }\n\
             [stages.d]\nuses = \"command\"\nwith = { run = [\"./a.sh\"], files = [\"s.json\"] }\n",
        ),
        ("a.sh", "#!/bin/sh\n"),
        ("x.txt", "x"),
        ("s.json", "{}"),
    ]);
    let plan = folder.plan("m.toml", &[]);
    assert_eq!(own(&plan, "a"), ["a.sh"]);
    assert_eq!(own(&plan, "b"), ["a.sh", "x.txt"]);
    assert_eq!(own(&plan, "c"), ["a.sh", "s.json"]);
    assert_eq!(own(&plan, "d"), ["a.sh", "s.json"]);
}

#[test]
fn who_changes_another_key_moves_no_path() {
    let part = "hotcell = 1\n[stages.go]\nuses = \"command\"\n\
                with = { run = [\"./a.sh\"], files = [\"*.txt\"], outputs.x = { type = \"json\", schema = \"s.json\" } }\n";
    let folder = Folder::new(&[
        ("plain.toml", "hotcell = 1\ninclude = [\"part/p.toml\"]\n"),
        (
            "m.toml",
            "hotcell = 1\ninclude = [\"part/p.toml\"]\n[stages.go]\nwith.observed = true\nwith.outputs.x.optional = true\n",
        ),
        (
            "more.toml",
            "hotcell = 1\ninclude = [\"part/p.toml\"]\n[stages.go]\nwith.files = [\"own.txt\"]\n",
        ),
        ("part/p.toml", part),
        ("part/a.sh", "#!/bin/sh\n"),
        ("part/x.txt", "x"),
        ("part/s.json", "{}"),
        ("own.txt", "y"),
    ]);
    let whole = ["a.sh", "s.json", "x.txt"];
    let plain = folder.plan("plain.toml", &[]);
    let changed = folder.plan("m.toml", &["stages.go.with.observed=false"]);
    for plan in [&plain, &changed] {
        assert_eq!(own(plan, "go"), whole);
        let (_, set) = plan.file_sets.iter().next().unwrap();
        assert!(
            set.files
                .iter()
                .all(|file| file.path.starts_with(folder.path("part")))
        );
    }
    assert_eq!(
        plain.file_sets.keys().collect::<Vec<_>>(),
        changed.file_sets.keys().collect::<Vec<_>>()
    );
    // What is said anew counts from where it is said.
    assert_eq!(
        own(&folder.plan("more.toml", &[]), "go"),
        ["a.sh", "own.txt", "s.json"]
    );
}

#[test]
fn two_files_of_one_name_are_told() {
    let folder = Folder::new(&[
        (
            "m.toml",
            "hotcell = 1\ninclude = [\"part/p.toml\"]\n[stages.go]\nwith.files = [\"a.sh\"]\n",
        ),
        (
            "part/p.toml",
            "hotcell = 1\n[stages.go]\nuses = \"command\"\nwith.run = [\"./a.sh\"]\n",
        ),
        ("part/a.sh", "1"),
        ("a.sh", "2"),
    ]);
    let mut loaded = load(&folder.path("m.toml"), &Options::default());
    assert!(plan(&mut loaded, &Profiles::shipped()).is_none());
    assert!(
        told(&loaded).contains("would both be `a.sh`"),
        "{}",
        told(&loaded)
    );
}

/// A hundred megabytes in a hundred instances took as long as ten thousand megabytes.
#[test]
fn own_files_are_read_once() {
    let folder = Folder::new(&[(
        "m.toml",
        "hotcell = 1\n[stages.a]\nuses = \"command\"\nfor-each.n = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]\n\
         with = { run = [\"true\", \"${n}\"], files = [\"big\"] }\n",
    )]);
    fs::write(folder.path("big"), vec![0u8; 8 << 20]).unwrap();
    let plan = folder.plan("m.toml", &[]);
    assert_eq!((plan.instances.len(), plan.file_sets.len()), (16, 1));
}

#[test]
fn names_do_not_hang_on_the_order_of_axes() {
    let text = |axes: &str| {
        format!(
            "hotcell = 1\n[stages.a]\nuses = \"command\"\nfor-each = {{ {axes} }}\nwith.run = [\"true\", \"${{x}}${{b}}\"]\n"
        )
    };
    let (_, one) = planned(&text("x = [1, 2], b = ['p', 'q']"));
    let (_, two) = planned(&text("b = ['p', 'q'], x = [1, 2]"));
    let facts = |plan: Option<Plan>| -> Vec<_> {
        let instances = plan.unwrap().instances.into_iter();
        instances
            .map(|instance| (instance.name, instance.slug, instance.seed))
            .collect()
    };
    let (one, two) = (facts(one), facts(two));
    assert_eq!(one, two);
    assert_eq!((one[0].0.as_str(), one[0].1.as_str()), ("a[b=p,x=1]", "p_1"));
}

#[test]
fn no_character_of_a_value_joins_it_to_the_next() {
    let (loaded, plan) = planned(
        "hotcell = 1\n[stages.a]\nuses = \"command\"\nfor-each = { m = [\"x\", \"x\\u0000y\"], n = [\"y\\u0000z\", \"z\"] }\nwith.run = [\"true\"]\n\
         [stages.b]\nuses = \"command\"\nfor-each = { m = [\"x\", \"x\\u0000y\"], n = [\"y\\u0000z\", \"z\"] }\nin.text = \"stages.a.out.stdout\"\nwith.run = [\"true\"]\n",
    );
    let plan = plan.unwrap_or_else(|| panic!("{}", told(&loaded)));
    for (index, instance) in plan.instances.iter().skip(4).enumerate() {
        let wanted = Wire::Output {
            instance: index,
            port: "stdout".into(),
        };
        assert_eq!(instance.inputs["text"], [wanted], "{}", instance.name);
    }
}

/// Nobody may read the secret in anything that is told, whoever overrides or uses it.
#[test]
fn secrets_that_are_written_out_are_not_shown() {
    let sources = "[sources.z]\nkind = \"archive\"\npath = \"*.zip\"\n";
    let variables = "[sources.z]\nkind = \"archive\"\npath = \"*.zip\"\npassword = \"${vars.pw}\"\n[vars]\npw = \"${vars.deep}\"\ndeep = \"hunter2\"\n";
    for (name, main, part) in [
        (
            "overridden",
            "hotcell = 1\ninclude = [\"p.toml\"]\n[sources.z]\npassword = 5\n".to_owned(),
            format!("hotcell = 1\n{sources}password = \"hunter2\"\n"),
        ),
        (
            "a variant that nobody asked for",
            format!("hotcell = 1\n{sources}[variants.ci.sources.z]\npassword = \"hunter2\"\n"),
            String::new(),
        ),
        ("a variable", format!("hotcell = 1\n{variables}"), String::new()),
        (
            "a list",
            format!("hotcell = 1\n{sources}password = [\"hunter2\"]\n"),
            String::new(),
        ),
        (
            "a value",
            format!("hotcell = 1\n{sources}password = {{ value = \"hunter2\" }}\n"),
            String::new(),
        ),
        (
            "an environment variable's value",
            format!("hotcell = 1\n{sources}password = {{ env = \"hunter2\" }}\n"),
            String::new(),
        ),
        (
            "a secret's value",
            "hotcell = 1\n[secrets.pw]\nvalue = \"hunter2\"\n".to_owned(),
            String::new(),
        ),
    ] {
        let part = if part.is_empty() {
            "hotcell = 1\n".to_owned()
        } else {
            part
        };
        let folder = Folder::new(&[("m.toml", &main), ("p.toml", &part)]);
        let mut loaded = load(&folder.path("m.toml"), &Options::default());
        plan(&mut loaded, &Profiles::shipped());
        let all = told(&loaded);
        assert!(all.contains("E0109"), "{name}: {all}");
        assert!(!all.contains("hunter2"), "{name}: {all}");
        // What a program draws of the sources has none of it either.
        assert!(
            loaded
                .sources
                .iter()
                .all(|source| !source.text.contains("hunter2")),
            "{name}"
        );
        assert_eq!(
            all.matches(": E0").count(),
            all.matches("E0109").count(),
            "{name}: {all}"
        );
    }
}

/// Seconds that something takes.
fn seconds(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs()
}

#[test]
fn no_number_of_mistakes_takes_long() {
    let mut wrong = String::from("hotcell = 1\n");
    for number in 0..4000 {
        let _ = write!(
            wrong,
            "[stages.st-{number}]\nuses = \"command\"\nwith.run = [\"true\"]\n"
        );
    }
    for number in 0..4000 {
        let _ = write!(
            wrong,
            "[[expect]]\nstage = \"ts-{number}\"\noutcome = \"completed\"\n"
        );
    }
    let mut unknown = String::from("hotcell = 1\n");
    for number in 0..20_000 {
        let _ = writeln!(unknown, "stagse{number} = 1");
    }
    for (name, text) in [("stages", wrong), ("keys", unknown)] {
        let mut count = 0;
        let took = seconds(|| {
            let (loaded, plan) = planned(&text);
            assert!(plan.is_none());
            count = loaded.diagnostics.len();
            let last = loaded.diagnostics.last().unwrap();
            assert_eq!(last.code, "E0013", "{}", last.title);
        });
        assert!(took < 20, "{name}: {took} s");
        assert_eq!(count, 1001, "{name}");
    }
}

#[test]
fn a_short_document_is_no_endless_work() {
    let long = "x".repeat(400_000);
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("\"t{n}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let expressions = vec!["\"${x}\""; 10_000].join(", ");
    let named = "y".repeat(40_000);
    for (text, code) in [
        (
            format!(
                "for-each = {{ x = [\"{long}\"], y = [{}] }}\nwith.run = [\"true\"]\n",
                many(60_000)
            ),
            "E0106",
        ),
        (
            format!("for-each.x = [{}]\nwith.run = [{expressions}]\n", many(300)),
            "E0209",
        ),
        (
            format!(
                "for-each = {{ x = [{{ name = \"n\", code = \"{named}\" }}], y = [{}] }}\nwith.run = [\"true\"]\n",
                many(20_000)
            ),
            "E0209",
        ),
        (
            format!(
                "for-each.x = [{}]\nwith.run = [\"true\", \"${{x}}{named}\"]\n",
                many(20_000)
            ),
            "E0209",
        ),
    ] {
        let text = format!("hotcell = 1\n[stages.a]\nuses = \"command\"\n{text}");
        let took = seconds(|| {
            let (loaded, plan) = planned(&text);
            assert!(plan.is_none());
            let codes: Vec<_> = loaded.diagnostics.iter().map(|problem| problem.code).collect();
            assert_eq!(codes, [code]);
        });
        assert!(took < 20, "{code}: {took} s");
    }
}
