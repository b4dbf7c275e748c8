//! What the rule language means.

use hotcell_detect::RuleSet;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::Finding;
use serde_json::{Value as Json, json};

fn rules(when: &str) -> RuleSet {
    let text = format!(
        "hotcell-rule = 1\nid = \"r\"\ntitle = \"t\"\ndescription = \"d\"\nseverity = \"low\"\nattack = [\"T1082\"]\n{when}\n"
    );
    RuleSet::parse(&[("r.toml", &text)]).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

/// An event of process `pid` at `time` milliseconds.
fn event(seq: u64, time: u64, pid: u32, what: Json) -> Event {
    serde_json::from_value(json!({
        "seq": seq, "time": time * 1_000_000, "witness": "engine",
        "task": {"pid": pid, "tid": pid, "parent": u32::from(pid != 1), "image": "/sample"},
        "what": what,
    }))
    .expect("an event")
}

fn file(seq: u64, op: &str, path: &str) -> Event {
    event(seq, 0, 1, json!({"file": {"op": op, "path": path}}))
}

fn judge(when: &str, events: &[Event]) -> Vec<Finding> {
    rules(when).evaluate(&Header::new("cell", "unicorn/linux", "arm"), events, None)
}

fn hits(when: &str, events: &[Event]) -> bool {
    !judge(when, events).is_empty()
}

fn pattern_hits(pattern: &str, event: &Event) -> bool {
    hits(
        &format!("when.match = {{ {pattern} }}"),
        std::slice::from_ref(event),
    )
}

#[test]
fn a_finding_says_which_events_prove_it() {
    let events = [
        file(3, "open", "/a"),
        file(4, "written", "/etc/x\u{1b}[0m"),
        file(5, "written", "/etc/y"),
    ];
    let findings = judge("when.match = { kind = \"file\", op = \"written\" }", &events);
    let expected = json!([{
        "rule": "r", "title": "t", "severity": "low", "attack": ["T1082"],
        "evidence": [
            {"event": 4, "text": "wrote /etc/x\\u{1b}[0m"},
            {"event": 5, "text": "wrote /etc/y"},
        ],
    }]);
    assert_eq!(serde_json::to_value(findings).expect("JSON"), expected);
}

#[test]
fn operators() {
    let event = file(0, "open", "/tmp/Some.Thing");
    for (pattern, expected) in [
        (r#"path = "/tmp/Some.Thing""#, true),
        (r#"path = ["/x", "/tmp/Some.Thing"]"#, true),
        (r#"path = "/tmp/some.thing""#, false),
        (r#"path = { equals = "/tmp/some.thing", nocase = true }"#, true),
        (r#"path = { equals = "/tmp/some.thin", nocase = true }"#, false),
        (r#"path = { contains = "Some" }"#, true),
        (r#"path = { contains = "some" }"#, false),
        (r#"path = { contains = ["q", "some"], nocase = true }"#, true),
        (r#"path = { contains = ["1", "2", "3", "4", "e.T"] }"#, true),
        (r#"path = { contains-all = ["Some", "Thing"] }"#, true),
        (r#"path = { contains-all = ["Some", "Other"] }"#, false),
        (
            r#"path = { startswith = "/tmp/", endswith = ["Thing", "x"] }"#,
            true,
        ),
        (r#"path = { startswith = "tmp/" }"#, false),
        (
            r#"path = { startswith = "/TMP", endswith = "THING", nocase = true }"#,
            true,
        ),
        (r#"path = { regex = '^/tmp/[A-Z]\w+\.' }"#, true),
        (
            r#"path = { regex = ["^nothing$", "thing$"], nocase = true }"#,
            true,
        ),
        (
            r#"path = { startswith = "/tmp/", not = { endswith = "Thing" } }"#,
            false,
        ),
        (r#"path = { not = "/x" }"#, true),
        (r#"name = "Some.Thing", directory = "/tmp""#, true),
        (r#"to = { exists = false }"#, true),
        (r#"to = { exists = true }"#, false),
        (r#"to = { not = "/x" }"#, true),
        (
            r#"any = [{ op = "written" }, { path = { contains = "Thing" } }]"#,
            true,
        ),
        (r#"any = [{ op = "written" }, { path = "/x" }]"#, false),
        (r#"not = { path = "/x" }"#, true),
        (
            r#"all = [{ op = "open" }, { not = { path = { contains = "Thing" } } }]"#,
            false,
        ),
        (r#"op = ["create", "open"], pid = 1"#, true),
        (r#"op = "create""#, false),
        (r#"failed = false, image = "/sample""#, true),
    ] {
        assert_eq!(
            pattern_hits(&format!("kind = \"file\", {pattern}"), &event),
            expected,
            "{pattern}"
        );
    }
}

#[test]
fn numbers_and_bits() {
    let chmod = event(
        0,
        0,
        1,
        json!({"file": {"op": "chmod", "path": "/x", "mode": 0o755}}),
    );
    for (pattern, expected) in [
        ("mode = 0o755", true),
        ("mode = { ge = 0o755, le = 0o755 }", true),
        ("mode = { gt = 0o755 }", false),
        ("mode = { lt = 0o1000, gt = 0 }", true),
        ("mode = { any-bit = 0o111 }", true),
        ("mode = { any-bit = 0o6000 }", false),
    ] {
        assert_eq!(
            pattern_hits(&format!("kind = \"file\", {pattern}"), &chmod),
            expected,
            "{pattern}"
        );
    }
}

#[test]
fn lists_arguments_and_ports() {
    let exec = event(
        0,
        0,
        1,
        json!({"process": {"op": "exec", "path": "/bin/sh", "argv": ["sh", "-c", "ls /"]}}),
    );
    assert!(pattern_hits(r#"kind = "process", argv = "-c""#, &exec));
    assert!(pattern_hits(
        r#"kind = "process", command-line = "sh -c ls /""#,
        &exec
    ));
    assert!(!pattern_hits(r#"kind = "process", argv = { not = "-c" }"#, &exec));
    let call = json!({"syscall": {"name": "socket", "number": 41, "result": 3, "args": [
        {"name": "domain", "value": {"name": "AF_PACKET"}}, {"name": "type", "value": {"flags": ["SOCK_RAW", "SOCK_CLOEXEC"]}},
        {"name": "protocol", "value": {"int": 768}}]}});
    let call = event(0, 0, 1, call);
    assert!(pattern_hits(
        r#"kind = "syscall", name = "socket", args.domain = "AF_PACKET", args.type = "SOCK_RAW""#,
        &call
    ));
    assert!(pattern_hits(
        r#"kind = "syscall", args.protocol = { ge = 768 }"#,
        &call
    ));
    assert!(!pattern_hits(
        r#"kind = "syscall", name = ["connect", "bind"]"#,
        &call
    ));
    assert!(!pattern_hits(
        r#"kind = "syscall", args.other = { exists = true }"#,
        &call
    ));
    let connect = event(
        0,
        0,
        1,
        json!({"network": {"op": "connect", "protocol": "tcp", "peer": "[2001:db8::1]:4444"}}),
    );
    assert!(pattern_hits(
        r#"kind = "network", peer-port = [23, 4444], peer-address = "2001:db8::1""#,
        &connect
    ));
    assert!(!pattern_hits(
        r#"kind = "network", local-port = { exists = true }"#,
        &connect
    ));
}

#[test]
fn combinations() {
    let (a, b) = (file(0, "open", "/a"), file(1, "open", "/b"));
    let leaf = |path: &str| format!("{{ match = {{ kind = \"file\", path = \"{path}\" }} }}");
    let both = format!("when.all = [{}, {}]", leaf("/a"), leaf("/b"));
    assert!(hits(&both, &[a.clone(), b.clone()]));
    assert!(!hits(&both, std::slice::from_ref(&a)));
    let either = format!("when.any = [{}, {}]", leaf("/a"), leaf("/b"));
    assert!(hits(&either, std::slice::from_ref(&b)));
    let without = format!("when.all = [{}, {{ not = {} }}]", leaf("/a"), leaf("/b"));
    assert!(hits(&without, std::slice::from_ref(&a)));
    assert!(!hits(&without, &[a, b]));
}

#[test]
fn a_rule_can_be_for_some_architectures() {
    let when = "only.arch = [\"mips\", \"mipsel\"]\nwhen.match = { kind = \"file\" }";
    let rules = rules(when);
    let events = [file(0, "open", "/a")];
    let on = |arch: &str| {
        rules
            .evaluate(&Header::new("c", "unicorn/linux", arch), &events, None)
            .len()
    };
    assert_eq!((on("mips"), on("x86_64")), (1, 0));
}

#[test]
fn counting_in_a_window() {
    let opens = |times: &[u64]| -> Vec<Event> {
        let open = |(seq, time): (usize, &u64)| {
            event(
                seq as u64,
                *time,
                1,
                json!({"file": {"op": "open", "path": format!("/{seq}")}}),
            )
        };
        times.iter().enumerate().map(open).collect()
    };
    let when = "when.count = { of = { kind = \"file\" }, at-least = 3, within = \"100ms\" }";
    assert!(hits(when, &opens(&[0, 50, 100])));
    assert!(!hits(when, &opens(&[0, 50, 101])));
    assert!(hits(when, &opens(&[0, 500, 900, 950, 990])));
    assert!(!hits(when, &opens(&[0, 90, 180, 270, 360])));
    // Without a window, all count.
    assert!(hits(
        "when.count = { of = { kind = \"file\" }, at-least = 3 }",
        &opens(&[0, 9_000, 90_000])
    ));
}

#[test]
fn counting_different_values_and_by_process() {
    let open = |seq: u64, pid: u32, path: &str| {
        event(seq, seq * 10, pid, json!({"file": {"op": "open", "path": path}}))
    };
    let when =
        "when.count = { of = { kind = \"file\" }, at-least = 3, distinct = \"path\", within = \"100ms\" }";
    assert!(!hits(
        when,
        &[
            open(0, 1, "/a"),
            open(1, 1, "/b"),
            open(2, 1, "/a"),
            open(3, 1, "/b")
        ]
    ));
    assert!(hits(
        when,
        &[
            open(0, 1, "/a"),
            open(1, 1, "/b"),
            open(2, 1, "/a"),
            open(3, 1, "/c")
        ]
    ));
    // A value that is seen again is as new: /a at 0 alone would be out of the window.
    assert!(hits(
        when,
        &[
            open(0, 1, "/a"),
            open(9, 1, "/b"),
            open(10, 1, "/a"),
            open(19, 1, "/c")
        ]
    ));
    assert!(!hits(
        when,
        &[open(0, 1, "/a"), open(9, 1, "/b"), open(11, 1, "/c")]
    ));
    let by = "when.count = { of = { kind = \"file\" }, at-least = 3, by = \"process\" }";
    assert!(!hits(
        by,
        &[
            open(0, 1, "/a"),
            open(1, 2, "/b"),
            open(2, 1, "/a"),
            open(3, 2, "/b")
        ]
    ));
    assert!(hits(
        by,
        &[
            open(0, 1, "/a"),
            open(1, 2, "/b"),
            open(2, 1, "/a"),
            open(3, 1, "/b")
        ]
    ));
}

const WRITTEN_THEN_EXECUTED: &str = r#"when.sequence = { within = "1s", by = "BY", steps = [
    { kind = "file", op = "written", path = { capture = "p" } },
    { kind = "file", op = "chmod", path = { same-as = "p" } },
    { kind = "process", op = "exec", path = { same-as = "p" } },
] }"#;

#[test]
fn a_sequence_follows_one_value() {
    let when = WRITTEN_THEN_EXECUTED.replace("BY", "sample");
    let step = |seq: u64, time: u64, pid: u32, what: &str, path: &str| match what {
        "exec" => event(seq, time, pid, json!({"process": {"op": "exec", "path": path}})),
        op => event(seq, time, pid, json!({"file": {"op": op, "path": path}})),
    };
    let good = [
        step(0, 0, 1, "written", "/p"),
        step(1, 1, 2, "chmod", "/p"),
        step(2, 2, 3, "exec", "/p"),
    ];
    assert!(hits(&when, &good));
    let other = [
        step(0, 0, 1, "written", "/p"),
        step(1, 1, 1, "chmod", "/p"),
        step(2, 2, 1, "exec", "/q"),
    ];
    assert!(!hits(&when, &other));
    let backwards = [
        step(0, 0, 1, "exec", "/p"),
        step(1, 1, 1, "chmod", "/p"),
        step(2, 2, 1, "written", "/p"),
    ];
    assert!(!hits(&when, &backwards));
    let late = [
        step(0, 0, 1, "written", "/p"),
        step(1, 1, 1, "chmod", "/p"),
        step(2, 1002, 1, "exec", "/p"),
    ];
    assert!(!hits(&when, &late));
    // Written again: the window counts from there.
    let again = [
        step(0, 0, 1, "written", "/p"),
        step(1, 900, 1, "written", "/p"),
        step(2, 901, 1, "chmod", "/p"),
        step(3, 1800, 1, "exec", "/p"),
    ];
    assert!(hits(&when, &again));
    let process = WRITTEN_THEN_EXECUTED.replace("BY", "process");
    assert!(!hits(&process, &good));
}

#[test]
fn a_sequence_finds_its_value_among_a_thousand() {
    let when = WRITTEN_THEN_EXECUTED.replace("BY", "sample");
    let mut events: Vec<Event> = (0..1000).map(|n| file(n, "written", &format!("/{n}"))).collect();
    events.push(file(1000, "chmod", "/7"));
    events.push(event(
        1001,
        0,
        1,
        json!({"process": {"op": "exec", "path": "/7"}}),
    ));
    let findings = judge(&when, &events);
    let seqs: Vec<_> = findings[0]
        .evidence
        .iter()
        .map(|evidence| evidence.event)
        .collect();
    assert_eq!(seqs, [Some(7), Some(1000), Some(1001)]);
}

#[test]
fn lineage_is_the_process_and_its_descendants() {
    let when = r#"when.sequence = { by = "lineage", steps = [{ kind = "network" }, { kind = "process", op = "exec" }] }"#;
    let fork = |seq: u64, pid: u32, child: u32| {
        event(seq, 0, pid, json!({"process": {"op": "fork", "child": child}}))
    };
    let connect = |seq: u64, pid: u32| {
        event(
            seq,
            0,
            pid,
            json!({"network": {"op": "connect", "protocol": "tcp"}}),
        )
    };
    let exec = |seq: u64, pid: u32| event(seq, 0, pid, json!({"process": {"op": "exec", "path": "/bin/sh"}}));
    let family = [fork(0, 1, 2), fork(1, 2, 3), fork(2, 1, 4)];
    let with = |rest: [Event; 2]| -> Vec<Event> { family.iter().cloned().chain(rest).collect() };
    assert!(hits(when, &with([connect(3, 2), exec(4, 3)])), "grandchild");
    assert!(hits(when, &with([connect(3, 2), exec(4, 2)])), "itself");
    assert!(!hits(when, &with([connect(3, 2), exec(4, 4)])), "sibling");
    assert!(!hits(when, &with([connect(3, 3), exec(4, 2)])), "parent");
}

#[test]
fn one_event_makes_one_step() {
    let when = r#"when.sequence = { steps = [{ kind = "file" }, { kind = "file" }] }"#;
    assert!(!hits(when, &[file(0, "open", "/a")]));
    assert!(hits(when, &[file(0, "open", "/a"), file(1, "open", "/a")]));
}

#[test]
fn facts_of_inspection() {
    let judge = |when: &str, info: &Json| rules(when).evaluate(&Header::new("c", "e", "arm"), [], Some(info));
    let info = json!({
        "kind": "elf", "hardening": {"nx": false, "pie": true}, "length": 100,
        "sections": [{"name": ".text", "entropy": 7.9, "offset": 64, "flags": ["alloc", "exec"]}, {"name": ".data", "entropy": 1.0}],
        "strings": {"list": [{"kind": "url", "text": "http://x/", "offset": 9}, {"kind": "text", "text": "abc", "offset": 20}]},
    });
    let findings = judge("when.inspect = { at = \"hardening.nx\", is = false }", &info);
    assert_eq!(findings[0].evidence[0].text, "hardening.nx is false");
    let high = "when.inspect = { at = \"sections[]\", where = { entropy = { ge = 7.2 }, flags = \"exec\" } }";
    let findings = judge(high, &info);
    assert_eq!(findings[0].evidence[0].offset, Some(64));
    assert_eq!(
        findings[0].evidence[0].text,
        "sections[0]: name .text, entropy 7.9, offset 64"
    );
    assert!(
        judge(
            "when.inspect = { at = \"sections[]\", at-least = 2, where = { entropy = { ge = 7.2 } } }",
            &info
        )
        .is_empty()
    );
    assert!(
        !judge(
            "when.inspect = { at = \"strings.list[].text\", is = { regex = \"^http\" } }",
            &info
        )
        .is_empty()
    );
    assert!(
        judge(
            "when.inspect = { at = \"hardening.relro\", is = \"none\" }",
            &info
        )
        .is_empty()
    );
    let no_info = rules("when.inspect = { at = \"kind\", is = \"elf\" }").evaluate(
        &Header::new("c", "e", "arm"),
        [],
        None,
    );
    assert!(no_info.is_empty());
}

#[test]
fn the_same_rules_in_yaml_and_in_another_order_are_the_same() {
    let toml = "hotcell-rule = 1\nid = \"a\"\ntitle = \"t\"\ndescription = \"d\"\nseverity = \"low\"\nwhen.match = { kind = \"file\", path = \"/a\" }\n";
    let yaml = "hotcell-rule: 1\nid: b\ntitle: t\ndescription: d\nseverity: low\nwhen:\n  match: {kind: file, path: /a}\ntests:\n- name: n\n  expect: hit\n  events: [{file: {op: open, path: /a}}]\n";
    let one = RuleSet::parse(&[("a.toml", toml), ("b.yaml", yaml)]).expect("good");
    let other = RuleSet::parse(&[("x/b.yml", yaml), ("y/a.toml", toml)]).expect("good");
    assert_eq!(one.digest(), other.digest());
    assert_ne!(
        one.digest(),
        RuleSet::parse(&[("a.toml", toml)]).expect("good").digest()
    );
    assert_eq!((one.self_test().run, one.self_test().failures.len()), (1, 0));
    let findings = other.evaluate(&Header::new("c", "e", "arm"), &[file(0, "open", "/a")], None);
    let ids: Vec<&str> = findings.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn a_test_that_is_wrong_is_told() {
    let when = "when.match = { kind = \"file\" }\n[[tests]]\nname = \"n\"\nexpect = \"miss\"\nevents = [{ file = { op = \"open\", path = \"/a\" } }]\n[[tests]]\nname = \"m\"\nexpect = \"hit\"\n[[tests]]\nname = \"o\"\nexpect = \"hit\"\nevidence = [\"wrote\"]\nevents = [{ file = { op = \"open\", path = \"/a\" } }]";
    let result = rules(when).self_test();
    let lines: Vec<String> = result.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "r.toml:8: rule `r`, test `n`: expected a miss, but it hit: opened /a",
            "r.toml:12: rule `r`, test `m`: expected a hit, there was none",
            "r.toml:15: rule `r`, test `o`: no evidence says `wrote`; there is: opened /a",
        ]
    );
}
