//! From manifests on disk to plans.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_plan::{After, AxisValue, Loaded, Options, Origin, Plan, Profiles, Wire, load, plan};
use hotcell_schema::internet::NetworkMode;
use hotcell_schema::stage::LinuxWith;
use serde_json::json;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = folder.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn path(&self, path: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join(path)
    }

    fn load(&self, path: &str, options: &Options) -> (Loaded, Option<Plan>) {
        let mut loaded = load(&self.path(path), options);
        let plan = plan(&mut loaded, &Profiles::shipped());
        (loaded, plan)
    }

    fn plan(&self, path: &str, options: &Options) -> Plan {
        let (loaded, plan) = self.load(path, options);
        plan.unwrap_or_else(|| panic!("{}", text(&loaded)))
    }
}

fn text(loaded: &Loaded) -> String {
    let lines: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|problem| problem.plain(&loaded.sources))
        .collect();
    lines.join("\n")
}

fn elf(machine: u16, mark: u8) -> Vec<u8> {
    let mut bytes = vec![0; 80];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[79] = mark;
    bytes
}

const TOML: &str = r#"
hotcell = 1
name = "first"
seed = 7

[samples.bots]
glob = "bin/*"
family = "mirai"

[stages.run]
uses = "unicorn/linux"
for-each.sample = "samples.bots"
for-each.round = [1, 2]
when = "stages.first-look.out.info.linkage == 'static'"
in.file = "${sample.file}"
with = { args = ["round-${round}", "${sample.arch}"], persona = "router" }
limits = { virtual-time = "5s", events = 1000, wall = "2m" }

[stages.first-look]
uses = "inspect/elf"
for-each.sample = "samples.bots"
in.file = "${sample.file}"

[stages.hits]
uses = "detect/rules"
for-each.sample = "samples.bots"
for-each.round = [1, 2]
in = { events = "stages.run.out.events", info = "stages.first-look.out.info" }
needs = ["first-look"]

[stages.after]
uses = "unicorn/payload"
needs = ["run"]
with = { arch = "x86_64", code = "90" }
"#;

const YAML: &str = r#"
hotcell: 1
name: first
seed: 7
samples:
  bots: { glob: "bin/*", family: mirai }
stages:
  run:
    uses: unicorn/linux
    for-each: { sample: samples.bots, round: [1, 2] }
    when: stages.first-look.out.info.linkage == 'static'
    in: { file: "${sample.file}" }
    with: { args: ["round-${round}", "${sample.arch}"], persona: router }
    limits: { virtual-time: 5s, events: 1000, wall: 2m }
  first-look:
    uses: inspect/elf
    for-each: { sample: samples.bots }
    in: { file: "${sample.file}" }
  hits:
    uses: detect/rules
    for-each: { sample: samples.bots, round: [1, 2] }
    in: { events: stages.run.out.events, info: stages.first-look.out.info }
    needs: [first-look]
  after:
    uses: unicorn/payload
    needs: [run]
    with: { arch: x86_64, code: "90" }
"#;

#[test]
fn a_manifest_becomes_instances() {
    let (x86_64, aarch64) = (elf(62, 1), elf(183, 2));
    let folder = Folder::new(&[
        ("m.toml", TOML.as_bytes()),
        ("bin/one", &x86_64),
        ("bin/two", &aarch64),
        ("bin/two-again", &aarch64),
    ]);
    let (loaded, plan) = folder.load("m.toml", &Options::default());
    let plan = plan.unwrap_or_else(|| panic!("{}", text(&loaded)));
    assert!(
        text(&loaded).contains("stand twice in the set"),
        "{}",
        text(&loaded)
    );

    assert_eq!(
        plan.stages.keys().collect::<Vec<_>>(),
        ["first-look", "run", "hits", "after"]
    );
    assert_eq!(plan.instances.len(), 2 + 4 + 4 + 1);
    let run = &plan.instances[2];
    let digest = hotcell_schema::digest::Digest::of(&x86_64);
    assert_eq!(run.name, format!("run[round=1,sample={digest}]"));
    assert_eq!(run.slug, format!("1_one-{}", digest.short()));
    assert_eq!(run.arch.as_deref(), Some("x86_64"));
    assert_eq!(run.persona.as_deref(), Some("router"));
    assert_eq!(plan.personas["router"].memory_mib, 128);
    assert_eq!(run.inputs["file"], [Wire::Sample(0)]);
    assert_eq!(run.axes["round"], AxisValue::Literal(json!(1)));
    assert_eq!(run.when.as_ref().unwrap().reads["first-look"], 0);
    assert_eq!(
        (
            plan.stages["run"].limits.guest.virtual_time,
            plan.stages["run"].limits.wall
        ),
        (5_000_000_000, Some(120_000_000_000))
    );
    let with: LinuxWith = run.with.read().unwrap();
    assert_eq!(
        (with.args.as_slice(), with.network),
        (
            ["round-1".to_owned(), "x86_64".to_owned()].as_slice(),
            NetworkMode::None
        )
    );

    let hits = &plan.instances[9];
    assert_eq!(
        hits.inputs["events"],
        [Wire::Output {
            instance: 5,
            port: "events".into()
        }]
    );
    assert_eq!(
        hits.inputs["info"],
        [Wire::Output {
            instance: 1,
            port: "info".into()
        }]
    );
    assert_eq!(hits.needs, [After::Instance(1)]);
    assert_eq!(hits.rules.as_deref(), Some("shipped"));
    assert!(!plan.rule_sets["shipped"].files.is_empty());
    assert_eq!(plan.instances[10].needs, [After::Stage("run".into())]);
    assert_eq!(plan.instances[10].slug, "only");

    let mut seeds: Vec<_> = plan.instances.iter().map(|instance| instance.seed).collect();
    seeds.sort();
    seeds.dedup();
    assert_eq!(seeds.len(), plan.instances.len());
    assert_eq!(plan.sample_of(run).unwrap().family.as_deref(), Some("mirai"));
    assert_eq!(
        std::fs::read(plan.sample_file(&plan.samples[0]).unwrap()).unwrap(),
        x86_64
    );

    // The written plan can be read again, and is the same each time.
    let json = serde_json::to_string(&plan).unwrap();
    let again: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), json);
    assert_eq!(
        serde_json::to_string(&folder.plan("m.toml", &Options::default())).unwrap(),
        json
    );
}

#[test]
fn toml_and_yaml_are_the_same_model() {
    let (x86_64, aarch64) = (elf(62, 1), elf(183, 2));
    let folder = Folder::new(&[
        ("m.toml", TOML.as_bytes()),
        ("m.yaml", YAML.as_bytes()),
        ("bin/one", &x86_64),
        ("bin/two", &aarch64),
    ]);
    let toml = serde_json::to_value(folder.plan("m.toml", &Options::default())).unwrap();
    let yaml = serde_json::to_value(folder.plan("m.yaml", &Options::default())).unwrap();
    assert_eq!(toml, yaml);
}

#[test]
fn documents_merge_and_paths_count_from_their_own() {
    let folder = Folder::new(&[
        ("m.yaml", b"hotcell: 1\ninclude: [base/b.toml]\nstages: {run: {with: {args: [three]}, limits: {events: 5}}}\nvariants: {ci: {stages: {run: {limits: {events: 6}}}}}\n"),
        (
            "base/b.toml",
            b"hotcell = 1\nseed = 3\nsamples.s.glob = \"bin/*\"\n[stages.run]\nuses = \"unicorn/linux\"\nfor-each.sample = \"samples.s\"\nin.file = \"${sample.file}\"\nwith = { args = [\"one\", \"two\"], argv0 = \"x\" }\n",
        ),
        ("base/bin/one", &elf(62, 1)),
        ("bin/not-this", &elf(62, 2)),
    ]);
    let plan = folder.plan("m.yaml", &Options::default());
    assert_eq!((plan.name.as_str(), plan.seed), ("m", 3));
    assert_eq!(plan.samples.len(), 1);
    assert_eq!(plan.samples[0].origin, Origin::File("base/bin/one".into()));
    let run = &plan.instances[0];
    assert_eq!(
        (run.with.json()["args"].clone(), run.with.json()["argv0"].clone()),
        (json!(["three"]), json!("x"))
    );
    assert_eq!(plan.stages["run"].limits.guest.events, 5);

    let options = Options {
        variants: vec!["ci".into()],
        ..Options::default()
    };
    assert_eq!(
        folder.plan("m.yaml", &options).stages["run"].limits.guest.events,
        6
    );
    let options = Options {
        variants: vec!["ci".into()],
        set: vec![
            "stages.run.limits.events=7".into(),
            "stages.run.limits.wall=5m".into(),
            "seed = 9".into(),
        ],
        ..Options::default()
    };
    let plan = folder.plan("m.yaml", &options);
    assert_eq!(
        (
            plan.stages["run"].limits.guest.events,
            plan.stages["run"].limits.wall
        ),
        (7, Some(300_000_000_000))
    );
    assert_eq!(plan.seed, 9);
}

#[test]
fn samples_come_from_lists_sources_and_the_command_line() {
    let (one, two, three) = (elf(62, 1), elf(183, 2), b"no elf".to_vec());
    let digest = hotcell_schema::digest::Digest::of(&two);
    let csv = format!("sha256,path,family,label\n,one,gafgyt,x\n{digest},,mirai,\n");
    let jsonl = format!("{{\"path\": \"sub/three\", \"variant\": \"v\"}}\n\n{{\"sha256\": \"{digest}\"}}\n");
    let folder = Folder::new(&[
        (
            "project/m.toml",
            b"hotcell = 1\nsources.vault = { kind = \"folder\", path = \"../vault\" }\n[samples.c]\nlist = \"c.csv\"\nsource = \"vault\"\nfamily = \"none\"\n[samples.j]\nlist = \"j.jsonl\"\nsource = \"vault\"\n[stages.look]\nuses = \"inspect/elf\"\nfor-each.sample = { over = [\"samples.c\", \"samples.j\", \"samples.files\"] }\nin.file = \"${sample.file}\"\n",
        ),
        ("project/c.csv", csv.as_bytes()),
        ("project/j.jsonl", jsonl.as_bytes()),
        ("vault/one", &one),
        ("vault/deep/two", &two),
        ("vault/sub/three", &three),
        ("elsewhere/four", b"4"),
    ]);
    let options = Options {
        samples: vec![("files".into(), folder.path("elsewhere/four"))],
        ..Options::default()
    };
    let plan = folder.plan("project/m.toml", &options);
    let facts: Vec<_> = plan
        .samples
        .iter()
        .map(|sample| {
            (
                sample.set.as_str(),
                sample.name.as_str(),
                sample.family.as_deref(),
                sample.arch.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("c", "one", Some("gafgyt"), Some("x86_64")),
            ("c", "two", Some("mirai"), Some("aarch64")),
            ("j", "three", None, None),
            ("j", "two", None, Some("aarch64")),
            ("files", "four", None, None),
        ]
    );
    // `two` stands in both sets, and is one sample on the axis.
    assert_eq!(plan.instances.len(), 4);
    for sample in &plan.samples {
        let bytes = std::fs::read(plan.sample_file(sample).unwrap()).unwrap();
        assert_eq!(hotcell_schema::digest::Digest::of(&bytes), sample.digest);
    }
}

#[test]
fn ten_thousand_stages_are_planned_in_linear_time() {
    let manifest = |count: usize| {
        let mut text = String::from("hotcell = 1\n");
        for number in 0..count {
            let needs = if number == 0 {
                String::new()
            } else {
                format!("needs = [\"s{}\"]\n", number - 1)
            };
            text.push_str(&format!("[stages.s{number}]\nuses = \"unicorn/payload\"\nwith = {{ arch = \"x86\", code = \"90\" }}\n{needs}"));
        }
        text
    };
    let profiles = Profiles::shipped();
    let time = |count: usize| {
        let text = manifest(count);
        let start = std::time::Instant::now();
        let mut loaded = hotcell_plan::load_text("m.toml".as_ref(), &text, &Options::default());
        let planned = plan(&mut loaded, &profiles);
        assert_eq!(
            planned.map(|plan| plan.instances.len()),
            Some(count),
            "{}",
            text.len()
        );
        start.elapsed()
    };
    time(100);
    let (small, large) = (time(1_000), time(10_000));
    // Ten times the stages may take up to forty times as long on a loaded machine; quadratic would be a hundred times.
    assert!(
        large < small * 40,
        "1,000 stages: {small:?}, 10,000 stages: {large:?}"
    );
}

#[test]
fn shipped_pipelines_are_included() {
    let folder = Folder::new(&[
        (
            "m.yaml",
            b"hotcell: 1\ninclude: [\"shipped:pipelines/linux-default.yaml\"]\nvars: { samples: samples.bots, wall: 1m }\nsamples: { bots: { glob: \"bin/*\" } }\nstages: { run: { retries: 2 } }\n",
        ),
        ("bin/one", &elf(62, 1)),
    ]);
    let plan = folder.plan("m.yaml", &Options::default());
    assert_eq!(plan.stages.keys().collect::<Vec<_>>(), ["triage", "run", "hits"]);
    assert_eq!(plan.stages["run"].limits.wall, Some(60_000_000_000));
    assert_eq!(plan.stages["run"].retries, 2);
    for pipeline in hotcell_plan::shipped::pipelines() {
        let text = format!(
            "hotcell = 1\ninclude = [\"shipped:{}\"]\nsamples.all.glob = \"bin/*\"\n",
            pipeline.path
        );
        std::fs::write(folder.path("each.toml"), text).unwrap();
        folder.plan("each.toml", &Options::default());
    }
}

#[test]
fn variables_variants_and_set_work_together() {
    let folder = Folder::new(&[
        (
            "m.toml",
            b"hotcell = 1\ninclude = [\"base.yaml\"]\nseed = \"${vars.seed}\"\nvars.events = 5\n[stages.a]\nretries = \"${vars.retries}\"\n[variants.more.vars]\nevents = 6\n[variants.more.stages.b]\nuses = \"unicorn/payload\"\nneeds = [\"a\"]\nwith = { arch = \"${vars.arch}\", code = \"90\" }\n[variants.twice.vars]\nevents = 7\nretries = 3\n",
        ),
        (
            "base.yaml",
            b"hotcell: 1\nvars: { arch: x86, seed: 9, retries: 1, ns: [1, 2] }\nstages:\n  a:\n    uses: unicorn/payload\n    for-each: { n: \"${vars.ns}\" }\n    with: { arch: \"${vars.arch}\", code: \"90\", trace: \"${n}\" }\n    limits: { events: \"${vars.events}\" }\n    when: n < vars.events\n",
        ),
    ]);
    let plan = folder.plan("m.toml", &Options::default());
    assert_eq!((plan.seed, plan.instances.len()), (9, 2));
    assert_eq!(plan.stages["a"].limits.guest.events, 5);
    assert_eq!(plan.instances[1].with.json()["trace"], 2);
    assert_eq!(plan.instances[0].when.as_ref().unwrap().value, Some(true));
    let options = Options {
        variants: vec!["more".into(), "twice".into()],
        set: vec!["vars.seed=4".into(), "vars.ns=[1]".into()],
        ..Options::default()
    };
    let plan = folder.plan("m.toml", &options);
    assert_eq!((plan.seed, plan.instances.len()), (4, 2));
    assert_eq!(plan.stages["a"].limits.guest.events, 7);
    assert_eq!(plan.stages["a"].retries, 3);
    assert_eq!(plan.stages.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn values_that_are_no_texts_are_written_out_as_words() {
    let place = Folder::new(&[(
        "m.toml",
        b"hotcell = 1\nname = 'words'\n[stages.s]\nuses = 'command'\nfor-each.n = [1, 2.5, true, 'text']\n\
         with = { run = ['tool', '${n}', 'n=${n}'], env = { N = '${n}' } }\n",
    )]);
    let plan = place.plan("m.toml", &Options::default());
    let words = |index: usize| {
        let with = plan.instances[index].with.json();
        (with["run"].to_string(), with["env"]["N"].to_string())
    };
    assert_eq!(words(0), (r#"["tool","1","n=1"]"#.into(), r#""1""#.into()));
    assert_eq!(words(1), (r#"["tool","2.5","n=2.5"]"#.into(), r#""2.5""#.into()));
    assert_eq!(
        words(2),
        (r#"["tool","true","n=true"]"#.into(), r#""true""#.into())
    );
    assert_eq!(
        words(3),
        (r#"["tool","text","n=text"]"#.into(), r#""text""#.into())
    );
}

#[test]
fn ten_thousand_wrong_references_are_told_soon() {
    let mut text = String::from(
        "hotcell = 1\nname = 'wrong'\n[stages]\nroot = { uses = 'command', with.run = ['true'] }\n",
    );
    for index in 0..10_000 {
        text += &format!(
            "w{index:05} = {{ uses = 'command', in.a = 'stages.x{index:05}.out.stdout', with.run = ['true'] }}\n"
        );
    }
    let place = Folder::new(&[("m.toml", text.as_bytes())]);
    let (loaded, plan) = place.load("m.toml", &Options::default());
    assert!(plan.is_none());
    assert!(loaded.diagnostics.len() >= 100, "{}", loaded.diagnostics.len());
    // The first are told with what may have been meant.
    let helped = loaded.diagnostics.iter().filter(|problem| problem.help.is_some());
    assert!((1..100).contains(&helped.count()));
    assert!(
        loaded.diagnostics[0]
            .help
            .as_ref()
            .is_some_and(|help| help.contains("w00000"))
    );
}

#[test]
fn what_a_stage_wants_of_the_cores_is_no_part_of_the_manifest() {
    let document = |cores: &str, of_stage: &str| {
        format!(
            "hotcell = 1\n{cores}\n[stages.run]\nuses = \"unicorn/payload\"\nwith = {{ arch = \"x86_64\", code = \"90\" }}\n{of_stage}\n"
        )
    };
    let plan = |text: &str| Folder::new(&[("m.toml", text.as_bytes())]).plan("m.toml", &Options::default());
    let plain = plan(&document("", ""));
    let wanting = plan(&document(
        "cores = { pool = \"2-7\" }",
        "cores = { exclusive = true, core = 3, priority = \"high\" }",
    ));
    assert_eq!(plain.manifest, wanting.manifest);
    assert_eq!(plain.stages, wanting.stages);
    assert_eq!(plain.instances, wanting.instances);
    assert!(plain.stage_cores.is_empty());
    assert_eq!(
        wanting.stage_cores["run"].words(),
        "1 core, exclusive, core 3, high priority"
    );
}
