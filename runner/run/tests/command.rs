//! Programs of the user's own as stages: what they are given, what is taken from them, what is told when they are wrong.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hotcell_cells::stop::StopSignal;
use hotcell_plan::{Instance, Profiles, load, load_text, plan};
use hotcell_run::{Done, Engines, Observer, Options, RunOutcome, Secrets, execute};
use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::InstanceFacts;
use hotcell_store::{Entry, Journal, RunFolder, Store};
use serde_json::Value as Json;

struct Silent;

impl Observer for Silent {
    fn started(&self, _: usize, _: &Instance) {}
    fn ended(&self, _: usize, _: &Instance, _: &Done) {}
    fn expanded(&self, _: &Instance, _: usize) {}
}

/// A folder with a manifest, a store and runs.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

const SECRET: &str = "hunter2-and-more";

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(&folder.path().join("store")).unwrap(),
            folder,
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, stages: &str) -> Run {
        let text = format!("hotcell = 1\nname = \"programs\"\n{stages}");
        let path = self.folder.path().join("programs.toml");
        let mut loaded = load_text(path.to_str().unwrap().into(), &text, &load::Options::default());
        let plan = plan(&mut loaded, &Profiles::shipped());
        let problems: Vec<String> = loaded
            .diagnostics
            .iter()
            .map(|one| one.plain(&loaded.sources))
            .collect();
        let plan = plan.unwrap_or_else(|| panic!("{}", problems.join("\n")));
        let environment = |name: &str| (name == "SECRET").then(|| SECRET.as_bytes().to_vec());
        let secrets = Secrets::of(
            loaded.manifest.as_ref().unwrap(),
            &loaded.sources,
            Box::new(environment),
        );
        let engines = Engines::new(Path::new("/nonexistent")).with_temporary(&std::env::temp_dir());
        let profiles = Profiles::shipped();
        let options = Options {
            jobs: 2,
            profiles: profiles.all(),
            secrets: Some(&secrets),
            ..Options::new(&self.store, &engines, StopSignal::new().unwrap())
        };
        let folder = RunFolder::create(&self.folder.path().join("runs"), "run").unwrap();
        let outcome = execute(&plan, &options, &folder, &Silent).unwrap();
        Run { outcome, folder }
    }

    /// One stage that runs a shell script, with further lines of its table.
    fn sh(&self, script: &str, more: &str) -> Run {
        self.write("script.sh", script);
        self.run(&format!(
            "[stages.it]\nuses = \"command\"\nwith.run = [\"sh\", \"script.sh\"]\n{more}"
        ))
    }
}

struct Run {
    outcome: RunOutcome,
    folder: RunFolder,
}

impl Run {
    fn facts(&self, instance: &str) -> &InstanceFacts {
        self.outcome
            .facts
            .instances
            .get(instance)
            .unwrap_or_else(|| panic!("no {instance}: {:?}", self.outcome.facts.instances.keys()))
    }

    /// What an instance gave on a port; it must have ended well.
    #[track_caller]
    fn output(&self, instance: &str, port: &str) -> String {
        let report = self.outcome.report.instances.iter();
        let report = report.clone().find(|one| one.name == instance).unwrap();
        let output = report.outputs.get(port).unwrap_or_else(|| {
            panic!(
                "{instance} gave no {port}: {:?} {:?}",
                report.reason,
                self.facts(instance).error
            )
        });
        std::fs::read_to_string(self.folder.result().join(&output.path)).unwrap()
    }

    fn reason(&self, instance: &str) -> String {
        let report = self.outcome.report.instances.iter();
        let report = report.clone().find(|one| one.name == instance).unwrap();
        report.reason.clone().unwrap_or_default()
    }

    #[track_caller]
    fn failed(&self, words: &[&str]) {
        assert_eq!(self.facts("it").status, Status::Failed, "{:?}", self.facts("it"));
        let reason = self.reason("it");
        for word in words {
            assert!(reason.contains(word), "{reason}: {:?}", self.facts("it"));
        }
    }
}

#[test]
fn a_program_gets_its_inputs_and_gives_its_outputs() {
    let place = Place::new();
    place.write("samples/a", "3 pears\n1 apple\n");
    place.write("parts/words.txt", "apple\n");
    place.write(
        "count.py",
        "import json, os, sys\n\
         from parts import helper\n\
         inputs, outputs = os.environ['HOTCELL_INPUTS'], os.environ['HOTCELL_OUTPUTS']\n\
         lines = open(sys.argv[1]).read().splitlines()\n\
         assert sys.stdin.read().splitlines() == lines\n\
         assert open('parts/words.txt').read() == 'apple\\n'\n\
         json.dump({'lines': helper.count(lines), 'mode': os.environ['MODE']}, open(sys.argv[2], 'w'))\n\
         os.makedirs(outputs + '/parts/deep')\n\
         open(outputs + '/parts/deep/one', 'w').write(lines[0])\n\
         print(os.getcwd(), os.environ['HOME'], sorted(os.listdir('.')), sorted(os.environ))\n",
    );
    place.write("parts/__init__.py", "");
    place.write("parts/helper.py", "def count(lines): return len(lines)\n");
    place.write(
        "table.json",
        r#"{"type": "object", "required": ["lines"], "properties": {"lines": {"type": "integer"}}}"#,
    );
    let stages = r#"
[samples.all]
glob = "samples/*"
[stages.count]
uses = "command"
for-each.sample = "samples.all"
in.file = "${sample.file}"
[stages.count.with]
run = ["python3", "count.py", "${inputs.file}", "${outputs.table}"]
files = ["parts/*"]
stdin = "file"
env = { MODE = "fast" }
outputs.table = { type = "json", schema = "table.json" }
outputs.parts = { type = "files" }
[stages.lines]
uses = "command"
in = { tables = "stages.count[*].out.table", parts = "stages.count[*].out.parts", out = "stages.count[*].out.stdout" }
with.run = ["sh", "-c", "cat inputs/tables/0000 inputs/parts/0000/index.json; cat inputs/parts/0000/????????????????*; ls inputs/tables"]
"#;
    let run = place.run(stages);
    let count = format!("count[sample={}]", Digest::of(b"3 pears\n1 apple\n"));
    assert_eq!(run.output(&count, "table"), r#"{"lines": 2, "mode": "fast"}"#);
    let said = run.output(&count, "stdout");
    assert!(
        said.contains("['count.py', 'inputs', 'outputs', 'parts', 'table.json']"),
        "{said}"
    );
    assert!(said.contains("'HOME', 'HOTCELL_INPUTS', 'HOTCELL_OUTPUTS', 'LANG', 'MODE', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED', 'SOURCE_DATE_EPOCH', 'TMPDIR', 'TZ'"), "{said}");
    let parts: Json = serde_json::from_str(&run.output(&count, "parts")).unwrap();
    assert_eq!(parts["files"][0]["path"], "deep/one");
    assert_eq!(parts["files"][0]["length"], 7);
    let lines = run.output("lines", "stdout");
    assert!(lines.contains("\"lines\": 2"), "{lines}");
    assert!(lines.contains("deep/one"), "{lines}");
    assert!(lines.ends_with("3 pears0000\nindex.json\n"), "{lines}");
    let held = &run.outcome.facts.confinement;
    assert!(held.iter().any(|layer| layer == "seccomp"), "{held:?}");

    // Nothing ran twice; and what a program is made of decides whether it runs.
    let again = place.run(stages);
    assert_eq!(again.facts(&count).status, Status::Cached);
    assert_eq!(again.facts("lines").status, Status::Cached);
    place.write("parts/helper.py", "def count(lines): return len(lines) + 1\n");
    let changed = place.run(stages);
    assert_eq!(changed.facts(&count).status, Status::Ok);
    assert!(changed.output(&count, "table").contains("\"lines\": 3"));
}

#[test]
fn an_own_executable_runs_and_its_output_can_be_standard_output() {
    let place = Place::new();
    place.write("tool.sh", "#!/bin/sh\necho '{\"a\": 1}'; exit 3\n");
    let tool = place.folder.path().join("tool.sh");
    let stages = "[stages.it]\nuses = \"command\"\nwith = { run = [\"./tool.sh\"], success = [0, 3], outputs.facts = { type = \"json\", from = \"stdout\" } }\n";
    let run = place.run(stages);
    run.failed(&["`./tool.sh` cannot be started"]);
    assert!(run.facts("it").error.as_ref().unwrap().contains("chmod +x"));
    std::fs::set_permissions(tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = place.run(stages);
    assert_eq!(run.output("it", "facts"), "{\"a\": 1}\n");
}

#[test]
fn a_wrong_output_is_named() {
    let place = Place::new();
    place.write(
        "schema.json",
        r#"{"properties": {"rows": {"items": {"type": "number"}}}}"#,
    );
    let outputs = "with.outputs.table = { type = \"json\", schema = \"schema.json\" }\n";
    let run = place.sh("echo '{\"rows\": [1, \"x\"]}' > outputs/table", outputs);
    run.failed(&[
        "`table`",
        "outputs/table",
        "schema.json",
        "/rows/1",
        "\"x\"",
        "number",
    ]);
    place.sh("true", outputs).failed(&["`table` is missing"]);
    place
        .sh("echo nonsense > outputs/table", outputs)
        .failed(&["outputs/table", "not JSON", "line 1"]);
    place
        .sh("ln -s /etc/passwd outputs/table", outputs)
        .failed(&["outputs/table is a symbolic link", "a regular file"]);
    place
        .sh("mkfifo outputs/table", outputs)
        .failed(&["a named pipe"]);
    place
        .sh(
            "echo '{\"format\": \"x\"}' > outputs/hits",
            "with.outputs.hits = { type = \"findings\" }",
        )
        .failed(&["`hits`", "findings"]);
    place
        .sh(
            "echo '{}' > outputs/events",
            "with.outputs.events = { type = \"events\" }",
        )
        .failed(&["`events`", "header"]);
    place
        .sh(
            "echo '{}'",
            "with.outputs.info = { type = \"json<elf-info>\", from = \"stdout\" }",
        )
        .failed(&["`info`", "standard output", "elf-info"]);
    let optional = "with.outputs = { a = { type = \"json\", optional = true }, b = { type = \"files\", optional = true } }";
    let run = place.sh("true", optional);
    assert_eq!(run.facts("it").status, Status::Ok, "{:?}", run.facts("it"));
    // Nothing wrong was stored: it is run again.
    let run = place.sh("true", outputs);
    assert_eq!(run.facts("it").status, Status::Failed);
}

#[test]
fn a_program_that_fails_says_why() {
    let place = Place::new();
    let run = place.sh("echo out of cheese >&2; exit 4", "");
    run.failed(&["`sh` ended with exit code 4"]);
    assert!(run.facts("it").error.as_ref().unwrap().contains("out of cheese"));
    assert!(!run.reason("it").contains("cheese"));
    place.sh("kill -SEGV $$", "").failed(&["SIGSEGV"]);
    place
        .sh("exec cat /dev/zero > outputs/x", "limits.file-bytes = \"1MiB\"")
        .failed(&["limits.file-bytes", "1048576"]);
    place
        .sh(
            "head -c 700000 /dev/zero > outputs/x; head -c 700000 /dev/zero",
            "limits.file-bytes = \"1MiB\"\nwith.outputs.x = {}",
        )
        .failed(&["limits.file-bytes", "1048576", "together"]);
    let run = place.sh("sleep 1000", "limits.wall = \"200ms\"");
    assert_eq!(run.facts("it").status, Status::Interrupted);
    let run = place.run("[stages.it]\nuses = \"command\"\nwith.run = [\"no-such-program\"]\n");
    assert_eq!(run.facts("it").status, Status::Refused);
    assert!(
        run.facts("it")
            .error
            .as_ref()
            .unwrap()
            .contains("no-such-program")
    );
}

#[test]
fn a_secret_reaches_the_program_and_nothing_else() {
    let place = Place::new();
    let secret = "with.env.TOKEN = { secret = \"token\" }\n[secrets.token]\nenv = \"SECRET\"\n";
    let run = place.sh("test ${#TOKEN} = 16", secret);
    assert_eq!(run.facts("it").status, Status::Ok, "{:?}", run.facts("it"));
    place
        .sh("echo the token is $TOKEN", secret)
        .failed(&["`stdout`", "secret `token`"]);
    let run = place.sh("echo it is $TOKEN >&2; exit 1", secret);
    assert_eq!(
        run.facts("it").error.as_deref(),
        Some("it said: it is <secret token>")
    );
    let mut all = Vec::new();
    read_all(place.folder.path(), &mut all);
    assert!(
        !all.windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes())
    );
}

fn read_all(folder: &Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_all(&path, into),
            false => into.extend(std::fs::read(path).unwrap()),
        }
    }
}

#[test]
fn no_encoding_brings_a_secret_out() {
    let place = Place::new();
    let secret = "with.env.TOKEN = { secret = \"token\" }\n[secrets.token]\nenv = \"SECRET\"\n";
    for script in [
        "printf %s $TOKEN | base64",
        "printf 'user:%s:more' $TOKEN | base64 -w0",
        "printf %s $TOKEN | od -An -v -tx1 | tr -d ' \\n'",
        "python3 -c 'import os, urllib.parse; print(urllib.parse.quote(os.environ[\"TOKEN\"]))'",
        // Across the borders of what is read at once.
        "head -c 65530 /dev/zero; printf %s $TOKEN",
    ] {
        place.sh(script, secret).failed(&["`stdout`", "secret `token`"]);
    }
    let files = format!("with.outputs.all = {{ type = \"files\" }}\n{secret}");
    for name in ["$TOKEN", "x-$TOKEN.txt", "deep/$TOKEN/x"] {
        let script = format!("mkdir -p \"$(dirname outputs/all/{name})\"; echo x > outputs/all/{name}");
        place
            .sh(&script, &files)
            .failed(&["`all`", "name of a file", "secret `token`"]);
    }
    let mut all = Vec::new();
    read_all(place.folder.path(), &mut all);
    assert!(
        !all.windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes())
    );
}

#[test]
fn what_is_told_of_standard_error_cuts_no_secret_and_obeys_nobody() {
    let place = Place::new();
    let secret = "with.env.TOKEN = { secret = \"token\" }\n[secrets.token]\nenv = \"SECRET\"\n";
    // At every place where the cut could fall.
    for after in 4096 - SECRET.len()..4096 {
        let script = format!(
            "printf 'many words before'; printf %s $TOKEN >&2; head -c {after} /dev/zero | tr '\\0' x >&2; exit 1"
        );
        let run = place.sh(&script, secret);
        let told = run.facts("it").error.clone().unwrap();
        let before = told.trim_start_matches("it said: ").split('x').next().unwrap();
        assert!(["", "<secret token>"].contains(&before), "{after}: {before}");
        if after % 5 == 0 {
            assert!(told.len() >= 4000, "{}", told.len());
        }
    }
    let run = place.sh(
        "printf '\\033[2Jgone\\r\\007\\302\\233x\\n\\tkept' >&2; exit 1",
        "",
    );
    assert_eq!(
        run.facts("it").error.as_deref(),
        Some("it said:\n␛[2Jgone␍␇⟨U+009B⟩x\n\tkept")
    );
}

#[test]
fn limits_hold_unasked_and_are_named_when_they_are_met() {
    let place = Place::new();
    let grouped = |run: &Run| {
        let facts = &run.outcome.facts;
        let grouped = facts.confinement.iter().any(|held| held == "memory-cgroup");
        let told = facts.fallbacks.iter().any(|text| text.contains("control groups"));
        assert!(grouped != told, "{facts:?}");
        grouped
    };
    let met = |run: &Run, limit: &str| {
        assert_eq!(
            run.facts("it").status,
            Status::Interrupted,
            "{:?}",
            run.facts("it")
        );
        let reason = run.reason("it");
        assert!(reason.contains(limit), "{reason}");
    };
    if grouped(&place.sh("true", "")) {
        let eater = "python3 -c 'x = b\"x\" * (256 << 20)'";
        met(
            &place.sh(eater, "limits.memory = \"64MiB\""),
            "`limits.memory` is 67108864",
        );
        let bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait";
        met(&place.sh(bomb, "limits.tasks = 4"), "`limits.tasks` is 4");
    }
    let filler = "for i in 1 2 3 4 5 6 7 8 9; do head -c 4000000 /dev/zero > $TMPDIR/$i || exit 1; done";
    met(
        &place.sh(filler, "limits.file-bytes = \"4MiB\""),
        "`limits.file-bytes` is 4194304",
    );
}

#[test]
fn a_store_in_a_folder_of_the_system_is_not_for_commands() {
    // Where every command can read, and this test may write.
    let Ok(folder) = tempfile::tempdir_in("/usr/local/share") else {
        return;
    };
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("key"), SECRET).unwrap();
    let place = Place {
        store: Store::open(&folder.path().join("store")).unwrap(),
        folder: tempfile::tempdir().unwrap(),
    };
    let script = format!("ls -A {0}/store; test ! -s {0}/key", folder.path().display());
    let key = format!("[secrets.key]\nfile = \"{}/key\"\n", folder.path().display());
    let run = place.sh(&script, &key);
    let facts = run.facts("it");
    if facts.status == Status::Ok {
        assert_eq!(run.output("it", "stdout"), "");
    } else {
        let error = facts.error.clone().unwrap_or_default();
        assert!(error.contains("move it"), "{error}");
    }
}

#[test]
fn equal_work_is_done_once_however_many_want_it() {
    let place = Place::new();
    let each = "for-each.n = [1, 2, 3, 4, 5, 6]\n";
    let run = place.sh("sleep 0.2; head -c 8 /dev/urandom | od", each);
    let name = |n: u8| format!("it[n={n}]");
    let all = (1..=6).map(name);
    let ran = all.clone().filter(|name| run.facts(name).status == Status::Ok);
    assert_eq!(ran.count(), 1, "{:?}", run.outcome.facts.instances);
    assert_eq!(run.outcome.count(&[Status::Cached]), 5);
    let said: std::collections::BTreeSet<String> = all.map(|name| run.output(&name, "stdout")).collect();
    assert_eq!(said.len(), 1);
    // What failed is not stored: each runs, and ends by itself.
    let run = place.sh("sleep 0.1; exit 3", each);
    assert_eq!(run.outcome.count(&[Status::Failed]), 6);
    let begun = Journal::read(&run.folder.journal()).unwrap();
    let begun = begun
        .iter()
        .filter(|entry| matches!(entry, Entry::Started { .. }));
    assert_eq!(begun.count(), 6, "each begins once, however often it was parked");
}

#[test]
fn a_program_is_told_where_each_of_many_inputs_came_from() {
    let place = Place::new();
    place.write("samples/a", "a");
    place.write("samples/b", "b");
    let stages = |name: &str| {
        format!(
            r#"
samples.all = {{ glob = "samples/*" }}
[stages.{name}]
uses = "command"
for-each.sample = "samples.all"
for-each.n = [1, 2]
in.file = "${{sample.file}}"
with.run = ["cat", "${{inputs.file}}"]
[stages.all]
uses = "command"
in.texts = "stages.{name}[*].out.stdout"
with.run = ["cat", "inputs/texts/index.json"]
"#
        )
    };
    let run = place.run(&stages("one"));
    let list: hotcell_schema::command::InputList =
        serde_json::from_str(&run.output("all", "stdout")).unwrap();
    assert_eq!(
        (list.format.as_str(), list.version, list.inputs.len()),
        ("hotcell-inputs", 1, 4)
    );
    for (input, (path, text, n)) in list.inputs.iter().zip([
        ("0000", "a", "1"),
        ("0001", "b", "1"),
        ("0002", "a", "2"),
        ("0003", "b", "2"),
    ]) {
        let sample = Digest::of(text.as_bytes());
        assert_eq!((input.path.as_str(), input.digest), (path, sample), "{input:?}");
        assert_eq!(
            (input.sample, input.stage.as_deref()),
            (Some(sample), Some("one"))
        );
        assert_eq!(input.axes["n"], n);
        assert_eq!(input.axes["sample"], sample.to_string());
        let name = input.instance.as_deref().unwrap();
        assert!(
            name.starts_with("one[")
                && name.contains(&format!("sample={sample}"))
                && name.contains(&format!("n={n}")),
            "{name}"
        );
    }
    assert_eq!(place.run(&stages("one")).facts("all").status, Status::Cached);
    // The same bytes from another stage: a program could tell.
    let other = place.run(&stages("two"));
    assert_eq!(other.facts("all").status, Status::Ok);
    assert!(other.output("all", "stdout").contains("\"stage\": \"two\""));
}

#[test]
fn what_a_failed_program_left_can_be_looked_at() {
    let place = Place::new();
    let outputs = "with.outputs.table = { type = \"json\" }\nwith.outputs.all = { type = \"files\" }\n";
    let secret = "with.env.TOKEN = { secret = \"token\" }\n[secrets.token]\nenv = \"SECRET\"\n";
    let script = "mkdir outputs/all; echo $TOKEN > outputs/all/one; echo '[1,' > outputs/table; echo out $TOKEN\n\
                  printf 'first\\n\\033[2Jsecond\\n' >&2";
    // It ends well, and its output is wrong: what it complained of is told all the same.
    let run = place.sh(script, &format!("{outputs}{secret}"));
    run.failed(&["secret `token`"]);
    let run = place.sh(&script.replace("$TOKEN", "none"), outputs);
    run.failed(&["`table`", "not JSON"]);
    let facts = run.facts("it");
    assert_eq!(facts.error.as_deref(), Some("it said:\nfirst\n␛[2Jsecond"));
    assert_eq!(facts.reason.as_deref(), Some(run.reason("it").as_str()));
    let read = |run: &Run, name: &str| {
        let left = run.facts("it").left.clone().unwrap();
        assert!(left.starts_with("failed/it/"), "{left}");
        std::fs::read_to_string(run.folder.path().join(left).join(name)).unwrap()
    };
    assert_eq!(read(&run, "stdout"), "out none\n");
    assert_eq!(read(&run, "stderr"), "first\n\u{1b}[2Jsecond\n");
    assert_eq!(read(&run, "outputs/table"), "[1,\n");
    assert_eq!(read(&run, "outputs/all/one"), "none\n");
    // Nothing of it is in the result, and no value of a secret anywhere.
    assert!(!run.folder.result().join("failed").exists());
    let run = place.sh(&format!("{script}\nexit 7"), &format!("{outputs}{secret}"));
    assert_eq!(read(&run, "stdout"), "out <secret token>\n");
    assert_eq!(read(&run, "outputs/all/one"), "<secret token>\n");
    // Who ends well leaves nothing, nor does who said nothing.
    assert_eq!(place.sh("echo good", "").facts("it").left, None);
    assert_eq!(place.sh("exit 1", "").facts("it").left, None);
}

#[test]
fn what_a_failed_program_left_is_bounded() {
    let place = Place::new();
    let run = place.sh(
        "mkdir outputs/all; for i in $(seq 200); do echo $i > outputs/all/$i; done; head -c 3000000 /dev/zero; exit 1",
        "with.outputs.all = { type = \"files\" }\n",
    );
    let left = run.folder.path().join(run.facts("it").left.clone().unwrap());
    assert_eq!(std::fs::metadata(left.join("stdout")).unwrap().len(), 1 << 20);
    assert_eq!(std::fs::read_dir(left.join("outputs/all")).unwrap().count(), 64);
}

#[test]
fn attempts_are_counted_and_end_with_the_run() {
    let place = Place::new();
    let run = place.sh("sleep 100", "limits.wall = \"50ms\"\nretries = 2\n");
    assert_eq!(run.facts("it").status, Status::Interrupted);
    assert_eq!(run.facts("it").attempts, 3);
    let journal = hotcell_store::Journal::read(&run.folder.journal()).unwrap();
    let attempts = journal.into_iter().find_map(|entry| match entry {
        hotcell_store::Entry::Ended { attempts, .. } => attempts,
        _ => None,
    });
    assert_eq!(attempts, Some(3));
}
