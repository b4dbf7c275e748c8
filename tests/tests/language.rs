//! The language of manifests from the command line: validate, fmt, help.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_tests::Lab;
use serde_json::Value;

#[test]
fn codes_are_explained() {
    let lab = Lab::new();
    fs::write(
        lab.path("x.toml"),
        "hotcell = 1\nnmae = \"x\"\nseed = \"${vars.n}\"\n",
    )
    .unwrap();
    let (_, stderr) = lab.expect(2, ["validate", "x.toml"]);
    assert!(
        stderr.contains("x.toml:2:1") && stderr.contains("E0101"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("hotcell help").count(), 1, "{stderr}");
    assert!(stderr.contains("hotcell help E0101 E0212"), "{stderr}");
    let (stdout, _) = lab.expect(0, ["help", "e0101"]);
    assert!(
        stdout.starts_with("E0101: ") && stdout.contains("nmae = \"bots\""),
        "{stdout}"
    );
    let (stdout, _) = lab.expect(0, ["help", "--list"]);
    assert!(stdout.lines().count() > 50, "{stdout}");
    let (stdout, _) = lab.expect(0, ["help", "validate"]);
    assert!(stdout.contains("--json"), "{stdout}");
    let (_, stderr) = lab.expect(2, ["help", "E9999"]);
    assert!(stderr.contains("--list"), "{stderr}");
    let (_, stderr) = lab.expect(2, ["help", "validat"]);
    assert!(stderr.contains("did you mean `validate`"), "{stderr}");
}

#[test]
fn programs_read_diagnostics_too() {
    let lab = Lab::new();
    fs::write(
        lab.path("x.yaml"),
        "hotcell: 1\nstages:\n  a: { uses: inspect/efl }\n",
    )
    .unwrap();
    let (stdout, _) = lab.expect(2, ["validate", "x.yaml", "--json"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(told["format"], "hotcell-diagnostics");
    let first = &told["diagnostics"][0];
    assert_eq!(
        (first["code"].as_str(), first["severity"].as_str()),
        (Some("E0201"), Some("error"))
    );
    assert_eq!(
        (
            &first["labels"][0]["start"]["line"],
            &first["labels"][0]["start"]["column"]
        ),
        (&3.into(), &14.into())
    );
    fs::write(lab.path("y.yaml"), "hotcell: 1\n").unwrap();
    let (stdout, _) = lab.expect(0, ["validate", "y.yaml", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&stdout).unwrap()["diagnostics"],
        Value::Array(Vec::new())
    );
}

#[test]
fn hosts_are_validated_and_not_planned() {
    let lab = Lab::new();
    let host = "hotcell = 1\nkind = \"host\"\ncores = { control = 0, chores = 1, pool = \"2-5\" }\n";
    fs::write(lab.path("host.toml"), host).unwrap();
    let (stdout, _) = lab.expect(0, ["validate", "host.toml"]);
    assert!(stdout.contains("4 cores for guests"), "{stdout}");
    let (_, stderr) = lab.expect(2, ["plan", "host.toml"]);
    assert!(stderr.contains("E0902"), "{stderr}");
    fs::write(lab.path("host.toml"), host.replace("2-5", "1-5")).unwrap();
    let (_, stderr) = lab.expect(2, ["validate", "host.toml"]);
    assert!(stderr.contains("E0601"), "{stderr}");
}

#[test]
fn documents_are_formatted_and_converted() {
    let lab = Lab::new();
    let text = "# Mine.\nhotcell: 1\nseed:    0x10\nsamples: {bots: {glob: \"bin/*\"}}  # all\n";
    fs::write(lab.path("x.yaml"), text).unwrap();
    lab.expect(1, ["fmt", "x.yaml", "--check"]);
    lab.expect(0, ["fmt", "x.yaml", "--write"]);
    lab.expect(0, ["fmt", "x.yaml", "--check"]);
    let written = fs::read_to_string(lab.path("x.yaml")).unwrap();
    assert!(
        written.contains("# Mine.") && written.contains("seed: 0x10\n") && written.contains("# all"),
        "{written}"
    );
    let (stdout, _) = lab.expect(0, ["fmt", "x.yaml", "--to", "toml"]);
    assert!(
        stdout.contains("[samples.bots]") && stdout.contains("seed = 16"),
        "{stdout}"
    );
    lab.expect(0, ["fmt", "x.yaml", "--to", "toml", "--write"]);
    assert!(lab.path("x.toml").exists());
    let (_, stderr) = lab.expect(2, ["fmt", "x.yaml", "--to", "toml", "--write"]);
    assert!(stderr.contains("exists already"), "{stderr}");
    fs::write(lab.path("n.yaml"), "hotcell: 1\nabout: null\n").unwrap();
    let (_, stderr) = lab.expect(2, ["fmt", "n.yaml", "--to", "toml"]);
    assert!(stderr.contains("E0012"), "{stderr}");
}
