//! Goldens of the report: what `report.json`, the terminal's summary and the pages say of an invented run.

use hotcell_report::text::{self, Style};
use hotcell_report::{Summary, fixture, html, to_json};
use std::collections::BTreeMap;

#[test]
fn report_json() {
    insta::assert_snapshot!(
        "report_json",
        to_json(&fixture::dropper().report).expect("plain data")
    );
}

#[test]
fn summary_for_a_terminal() {
    let run = fixture::dropper();
    insta::assert_snapshot!(
        "summary",
        text::summary(&Summary::of(&run.report, Some(&run.facts)), Style::default())
    );
}

#[test]
fn summary_of_hostile_text_in_colour() {
    let run = fixture::hostile();
    let style = Style {
        colour: true,
        width: 80,
    };
    let summary = text::summary(&Summary::of(&run.report, None), style);
    // Colours are ours; every other control character was the sample's and is shown as a picture.
    let own = |code: &str| code.chars().all(|c| c.is_ascii_digit() || c == ';');
    for piece in summary.split('\u{1b}').skip(1) {
        let code = piece.strip_prefix('[').and_then(|rest| rest.split_once('m'));
        assert!(code.is_some_and(|(code, _)| own(code)), "{piece:?}");
    }
    assert!(
        summary
            .chars()
            .all(|c| c == '\n' || c == '\u{1b}' || !c.is_control())
    );
    assert!(!summary.contains(['\u{202e}', '\u{200b}']));
    insta::assert_snapshot!("summary_hostile", summary.replace('\u{1b}', "ESC"));
}

fn pages(run: &fixture::Fixture, facts: bool) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let facts = facts.then_some(&run.facts);
    html::pages(&run.report, facts, &run.turns, &run.outputs, &mut |path, page| {
        pages.insert(path.to_owned(), page.to_owned());
        Ok(())
    })
    .expect("pages in memory");
    pages
}

#[test]
fn pages_are_the_same_every_time_and_hold_the_host_in_one_section_only() {
    let run = fixture::dropper();
    let with = pages(&run, true);
    assert_eq!(with, pages(&run, true));
    let without = pages(&run, false);
    assert_eq!(
        with.keys().collect::<Vec<_>>(),
        without.keys().collect::<Vec<_>>()
    );
    for (path, page) in &with {
        if path == "report.html" {
            let (before, facts) = page.split_once("<section id=\"facts\"").expect("run facts");
            let (_, after) = facts.split_once("</section>").expect("its end");
            assert!(facts.contains("2026-01-31T08:15:00Z"));
            assert!(!before.contains("2026-01-31") && !after.contains("2026-01-31"));
        } else {
            assert_eq!(
                Some(page),
                without.get(path),
                "{path} holds something of the host"
            );
        }
    }
}

#[test]
fn pages_name_nothing_outside() {
    for run in [fixture::dropper(), fixture::hostile()] {
        for (path, page) in pages(&run, true) {
            assert!(page.contains("default-src 'none'"), "{path}");
            for wanted in [
                "<link rel=\"stylesheet",
                "<script src",
                "@import",
                "url(",
                "<base",
            ] {
                assert!(!page.contains(wanted), "{path} holds {wanted}");
            }
            for href in page
                .split("href=\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
            {
                let inside = ["#", "samples/", "../report.html", "data:,"]
                    .iter()
                    .any(|start| href.starts_with(start));
                assert!(inside, "{path} links to {href}");
            }
        }
    }
}
