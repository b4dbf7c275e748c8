//! `hotcell lock` and `--locked`.

use std::fs;

use hotcell_tests::Lab;

use super::{experiment, write};

#[test]
fn whatever_is_not_as_it_was_pinned_is_refused() {
    let lab = Lab::new();
    experiment(&lab);
    let (_, stderr) = lab.expect(2, ["run", "ex.yaml", "--locked"]);
    assert!(stderr.contains("hotcell lock ex.yaml"), "{stderr}");
    lab.expect(0, ["lock", "ex.yaml"]);
    let text = fs::read_to_string(lab.path("hotcell.lock")).unwrap();
    assert!(
        text.contains("version = 2\n") && text.contains("\"bots: samples/one\" = \""),
        "{text}"
    );
    lab.expect(0, ["lock", "ex.yaml"]);
    assert_eq!(
        text,
        fs::read_to_string(lab.path("hotcell.lock")).unwrap(),
        "the same things give the same bytes"
    );
    lab.expect(0, ["lock", "ex.yaml", "--check"]);
    lab.expect(0, ["run", "ex.yaml", "--locked", "--progress", "none"]);
    let refused = |wanted: &str| {
        for args in [
            &["plan", "ex.yaml", "--locked"][..],
            &["run", "ex.yaml", "--locked"],
            &["test", "ex.yaml", "--locked"],
            &["lock", "ex.yaml", "--check"],
        ] {
            let (_, stderr) = lab.expect(2, args.iter().copied());
            assert!(stderr.contains(wanted), "{args:?}: {stderr}");
        }
        let (_, stderr) = lab.expect(0, ["plan", "ex.yaml"]);
        assert_eq!(
            stderr
                .lines()
                .filter(|line| line.contains("hotcell.lock"))
                .count(),
            1,
            "{stderr}"
        );
    };
    // A sample that is new, one that is another, one that is gone.
    lab.write("samples/four", "d");
    refused("samples bots: samples/four: not pinned");
    fs::remove_file(lab.path("samples/four")).unwrap();
    lab.write("samples/one", "other");
    refused("samples bots: samples/one: pinned ca978112ca1b, there is ");
    fs::remove_file(lab.path("samples/one")).unwrap();
    refused("and it is gone");
    lab.write("samples/one", "a");
    lab.expect(0, ["plan", "ex.yaml", "--locked"]);
    // The manifest itself, and what is set from outside.
    let before = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    write(&lab, "fail", "y");
    refused("documents ex.yaml: ");
    fs::write(lab.path("ex.yaml"), before).unwrap();
    lab.expect(2, ["plan", "ex.yaml", "--locked", "--set", "seed=9"]);
    let runs = fs::read_dir(lab.path(".hotcell/runs")).unwrap().count();
    assert_eq!(runs, 1, "nothing was run that was refused");
    lab.write("hotcell.lock", "format = \"hotcell-lock\"\nversion = 99\n");
    let (_, stderr) = lab.expect(2, ["plan", "ex.yaml", "--locked"]);
    assert!(stderr.contains("hotcell-lock 99"), "{stderr}");
}

#[test]
fn a_lock_file_holds_every_manifest_of_its_folder() {
    let lab = Lab::new();
    experiment(&lab);
    fs::copy(lab.path("ex.yaml"), lab.path("other.yaml")).unwrap();
    lab.expect(0, ["lock", "ex.yaml"]);
    lab.expect(0, ["lock", "other.yaml"]);
    lab.expect(0, ["lock", "ex.yaml", "--check"]);
    lab.expect(0, ["lock", "other.yaml", "--check"]);
}
