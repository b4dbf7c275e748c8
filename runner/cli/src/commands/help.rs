//! `hotcell help`: a command's help, or the page of a diagnostic's code.

use clap::CommandFactory as _;
use hotcell_plan::catalogue::{self, Page};
use hotcell_plan::diagnostics::nearest;

use crate::args::{Cli, HelpArgs};
use crate::exit::{Exit, Failure};
use crate::ui;

pub(crate) fn run(args: &HelpArgs) -> Result<Exit, Failure> {
    if args.list {
        for Page { code, about, .. } in catalogue::pages() {
            ui::out(&format!("{}  {about}", ui::styled(ui::BOLD, code)));
        }
        return Ok(Exit::Ok);
    }
    match args.topic.as_slice() {
        codes if !codes.is_empty() && codes.iter().all(|topic| is_code(topic)) => {
            for (index, wanted) in codes.iter().enumerate() {
                if index > 0 {
                    ui::out("");
                }
                code(wanted)?;
            }
            Ok(Exit::Ok)
        }
        topic => command(topic),
    }
}

/// Whether it is meant as a code: a letter and digits.
fn is_code(text: &str) -> bool {
    text.strip_prefix(['E', 'e', 'W', 'w'])
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn code(wanted: &str) -> Result<(), Failure> {
    let Some(page) = catalogue::page(wanted) else {
        let failure = Failure::usage(format!("there is no code {wanted}"));
        return Err(match catalogue::nearest_code(wanted) {
            Some(near) => failure.help(format!("did you mean {near}? hotcell help --list shows all")),
            None => failure.help("hotcell help --list shows all"),
        });
    };
    ui::out(shown(page.text).trim_end());
    Ok(())
}

/// A page for a terminal: titles stand out, code is indented, `names` are coloured.
fn shown(page: &str) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("# ").or_else(|| line.strip_prefix("## ")) {
            out.push_str(&ui::styled(ui::BOLD, title));
        } else if let Some(info) = line.strip_prefix("```") {
            for word in info.split(' ').skip(1) {
                let label = match word.split_once('=') {
                    Some(("file", path)) => format!("{path}:"),
                    Some((option, value)) => format!("with --{option} {value}:"),
                    None => continue,
                };
                out.push_str(&format!("{}\n", ui::styled(ui::DIM, label)));
            }
            let code: Vec<String> = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(|line| ui::styled(ui::CYAN, format!("    {line}")))
                .collect();
            out.push_str(&code.join("\n"));
        } else {
            for (index, piece) in line.split('`').enumerate() {
                if index % 2 == 1 {
                    out.push_str(&ui::styled(ui::CYAN, piece));
                } else {
                    out.push_str(piece);
                }
            }
        }
        out.push('\n');
    }
    out
}

fn command(topic: &[String]) -> Result<Exit, Failure> {
    let mut found = Cli::command();
    found.build();
    for name in topic {
        let Some(inner) = found.find_subcommand(name) else {
            let known: Vec<&str> = found.get_subcommands().map(clap::Command::get_name).collect();
            let failure = Failure::usage(format!("there is no command `{name}`, and no code"));
            return Err(match nearest(name, known.iter().copied()) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("commands: {}", known.join(", "))),
            });
        };
        found = inner.clone();
    }
    ui::out(found.render_long_help().ansi().to_string().trim_end());
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_from_commands() {
        assert!(is_code("E0101") && is_code("e1"));
        assert!(!is_code("explain") && !is_code("E") && !is_code("0101"));
    }

    #[test]
    fn every_page_can_be_shown() {
        for page in catalogue::pages() {
            let shown = anstream::adapter::strip_str(&shown(page.text)).to_string();
            assert!(!shown.contains("```") && shown.starts_with(page.code), "{shown}");
        }
    }
}
