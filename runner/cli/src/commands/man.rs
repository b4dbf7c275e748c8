//! `hotcell man`: the manual pages.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::{Cli, ManArgs};
use crate::exit::{Exit, Failure};
use crate::ui;

const EXIT: [(&str, &str); 8] = [
    ("0", "All well."),
    ("1", "An expectation or a golden is not met; two runs differ."),
    (
        "2",
        "The manifest or the usage is wrong; with --locked, something is not as it was pinned.",
    ),
    ("3", "A stage failed or was interrupted."),
    ("4", "This host cannot do it."),
    ("5", "Something was not judged."),
    ("10", "Host changes are pending."),
    ("130", "Stopped by Ctrl-C."),
];

const FILES: [(&str, &str); 4] = [
    (
        ".hotcell/runs/RUN/",
        "A run: run.json, journal.jsonl, plan.json, report.html and result/. Beside the manifest, or where --state says.",
    ),
    (
        "$XDG_CACHE_HOME/hotcell/store/",
        "What was run, by digest. One for each user, or where --store says.",
    ),
    (
        "hotcell.lock",
        "Beside the manifest: what it was made of when `hotcell lock` was run.",
    ),
    (
        "golden/NAME/",
        "Beside the manifest: results that a person accepted.",
    ),
];

const ENVIRONMENT: [(&str, &str); 9] = [
    ("HOTCELL_STORE", "Folder of the store, as --store."),
    ("HOTCELL_ARBITER", "Socket of the host's arbiter, as --arbiter."),
    (
        "XDG_RUNTIME_DIR",
        "Its folder hotcell holds the sockets of runs, for `hotcell cells`.",
    ),
    (
        "HOTCELL_CACHE",
        "hotcell's own folder among the caches; else $XDG_CACHE_HOME/hotcell, else ~/.cache/hotcell.",
    ),
    (
        "HOTCELL_LIBEXEC",
        "Folder with hotcell-unicorn, hotcell-inspect, hotcell-qemu and hotcell-monitor; else that of hotcell itself.",
    ),
    (
        "HOTCELL_WATCHED_BY",
        "Who watches guests on the host's kernel: ebpf or ptrace, or nobody; else the first that can.",
    ),
    ("NO_COLOR", "Not empty: no colours."),
    (
        "CI",
        "Set by services for continuous integration: `hotcell test --accept` is refused.",
    ),
    ("HOME, XDG_CACHE_HOME", "Where the caches are."),
];

pub(crate) fn run(args: &ManArgs) -> Result<Exit, Failure> {
    fs_err::create_dir_all(&args.out)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let count = pages(&command, "hotcell", &args.out)?;
    ui::say(&format!("{count} pages in {}", args.out.display()));
    Ok(Exit::Ok)
}

/// Writes the page of a command and those below it.
fn pages(command: &clap::Command, name: &str, out: &Path) -> Result<usize, Failure> {
    // clap lends names for as long as the program runs; a page is made a few dozen times.
    let named = command
        .clone()
        .name(name.to_owned())
        .bin_name(name.replace('-', " "));
    let mut page = Vec::new();
    write_page(
        &Man::new(named)
            .manual("hotcell")
            .source(concat!("hotcell ", env!("CARGO_PKG_VERSION"))),
        &mut page,
    )?;
    fs_err::write(out.join(format!("{name}.1")), page)?;
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        count += pages(below, &format!("{name}-{}", below.get_name()), out)?;
    }
    Ok(count)
}

fn write_page(man: &Man, page: &mut Vec<u8>) -> Result<(), Failure> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    man.render_subcommands_section(page)?;
    man.render_extra_section(page)?;
    section("EXIT STATUS", &EXIT, page)?;
    section("FILES", &FILES, page)?;
    section("ENVIRONMENT", &ENVIRONMENT, page)
}

fn section(title: &str, rows: &[(&str, &str)], page: &mut dyn Write) -> Result<(), Failure> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (name, about) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*about)]);
    }
    Ok(roff.to_writer(page)?)
}
