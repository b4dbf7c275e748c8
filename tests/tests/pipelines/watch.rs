//! `hotcell watch`, as a process whose words are waited for.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use hotcell_tests::Lab;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{experiment, write};

struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn new(lab: &Lab, more: &[&str]) -> Self {
        let args = ["watch", "ex.yaml"].into_iter().chain(more.iter().copied());
        let mut child = lab
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let tell = tell.clone();
            std::thread::spawn(move || {
                BufReader::new(stream)
                    .lines()
                    .map_while(Result::ok)
                    .for_each(|line| _ = tell.send(line));
            });
        }
        Self { child, lines }
    }

    /// Waits for a line; what comes before it is returned too.
    fn until(&self, wanted: &str) -> String {
        let mut seen = String::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|_| panic!("never: {wanted}; there was:\n{seen}"));
            seen.push_str(&line);
            seen.push('\n');
            if line.contains(wanted) {
                return seen;
            }
        }
    }

    /// Waits for lines, in whatever order the two streams bring them.
    fn until_all(&self, wanted: &[&str]) {
        let mut left = wanted.to_vec();
        let mut seen = String::new();
        while !left.is_empty() {
            let line = self.lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|_| panic!("never: {left:?}; there was:\n{seen}"));
            left.retain(|wanted| !line.contains(wanted));
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    /// Nothing is told for longer than anything is waited for.
    fn is_quiet(&self) {
        let line = self.lines.recv_timeout(Duration::from_millis(700));
        assert!(line.is_err(), "{line:?}");
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(130));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_are_planned_again() {
    let lab = Lab::new();
    experiment(&lab);
    lab.run("ex.yaml", &["--progress", "none"]);
    let watch = Watch::new(&lab, &[]);
    watch.until("watching ex.yaml");
    // As an editor writes that renames: only what differs is shown.
    let old = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    lab.write("ex.yaml.new", old.replace("\"x\"", "\"y\""));
    fs::rename(lab.path("ex.yaml.new"), lab.path("ex.yaml")).unwrap();
    watch.until("run     all");
    // A broken manifest is told of, and watched on.
    lab.write("ex.yaml", "hotcell: 1\nstages: [\n");
    watch.until("ex.yaml:");
    write(&lab, "fail", "x");
    watch.until("cached  all");
    // A new sample.
    lab.write("samples/four", "dd");
    watch.until("run     sum[sample=four-");
    watch.end();
}

#[test]
fn what_a_broken_or_missing_include_needs_is_watched() {
    let lab = Lab::new();
    experiment(&lab);
    let whole = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    lab.write("ex.yaml", "hotcell: 1\ninclude: [parts/base.yaml]\n");
    lab.write("parts/base.yaml", "hotcell: 1\nstages: [\n");
    let watch = Watch::new(&lab, &[]);
    watch.until_all(&["parts/base.yaml:", "watching ex.yaml"]);
    lab.write("parts/base.yaml", whole.replace("samples/*", "../samples/*"));
    watch.until_all(&["leads out of the folder", "watching ex.yaml"]);
    let moved = whole.replace("samples/*", "here/*");
    // The samples come later, in a folder that is not there yet.
    lab.write("parts/base.yaml", &moved);
    watch.until("watching ex.yaml");
    lab.write("parts/here/one", "a");
    watch.until_all(&["run     sum[sample=one-", "wait    all", "watching ex.yaml"]);
    // Another include, that is not there, in a folder that is not there.
    lab.write(
        "ex.yaml",
        "hotcell: 1\ninclude: [parts/base.yaml, more/over.yaml]\n",
    );
    watch.until_all(&["more/over.yaml", "watching ex.yaml"]);
    lab.write(
        "more/over.yaml",
        "hotcell: 1\nstages: { all: { with: { run: [echo, z] } } }\n",
    );
    // `all` waits as before; what is read of the plan is that it could be made.
    watch.until("a run would do the same as before");
    watch.end();
}

#[test]
fn one_change_is_planned_once() {
    let lab = Lab::new();
    experiment(&lab);
    let watch = Watch::new(&lab, &[]);
    // The two streams come in any order: the last line of each.
    watch.until_all(&["wait    all", "watching ex.yaml"]);
    // Saved as it was, and what editors try in between: nothing to plan.
    let old = fs::read_to_string(lab.path("ex.yaml")).unwrap();
    lab.write("ex.yaml", &old);
    lab.write("4913", "");
    fs::remove_file(lab.path("4913")).unwrap();
    lab.write("trial", "");
    fs::remove_file(lab.path("trial")).unwrap();
    watch.is_quiet();
    // Written beside, kept as a backup, renamed over.
    for word in ["first", "second"] {
        lab.write("ex.yaml.part", old.replace("\"x\"", &format!("{word:?}")));
        fs::rename(lab.path("ex.yaml"), lab.path("ex.yaml~")).unwrap();
        fs::rename(lab.path("ex.yaml.part"), lab.path("ex.yaml")).unwrap();
        watch.until_all(&["a run would do the same as before", "watching ex.yaml"]);
        watch.is_quiet();
    }
    watch.end();
}

#[test]
fn changes_are_run() {
    let lab = Lab::new();
    experiment(&lab);
    let watch = Watch::new(&lab, &["--run", "--progress", "plain"]);
    watch.until("ok          all");
    watch.until("watching");
    write(&lab, "fail", "z");
    watch.until("ok          all");
    watch.until("watching");
    watch.end();
    assert_eq!(
        fs::read_dir(lab.path(".hotcell/runs")).unwrap().count(),
        2,
        "a run is no change"
    );
}
