//! The report's pages in a real browser: rows render, filters work, nothing is requested from anywhere, and what a sample
//! chose stays text. Skipped, and said so, where there is no Chromium.

mod browser;

use std::path::{Path, PathBuf};

use browser::{Fallible, Page};
use camino::Utf8Path;
use hotcell_report::fixture::{self, Fixture};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

type Check = fn(&mut Page, &Path) -> Fallible<()>;

fn main() {
    let arguments = Arguments::from_args();
    let checks: [(&str, Check); 8] = [
        ("summary_page_filters_and_groups", summary),
        ("sample_page_shows_filters_and_proves", sample),
        ("a_long_stream_draws_only_what_is_seen", long),
        ("hostile_text_stays_text", hostile),
        ("changes_need_no_script_and_hostile_ones_stay_text", changes),
        ("turns_are_drawn_and_can_be_read", turns),
        ("pages_fit_a_phone", phone),
        ("dark_where_dark_is_preferred", dark),
    ];
    let executable = browser::executable();
    let trials = checks
        .into_iter()
        .map(|(name, check)| match executable.clone() {
            Some(executable) => Trial::test(name, move || run(&executable, check)),
            None => Trial::test(name, || Ok(()))
                .with_kind("no chromium in PATH, set HOTCELL_CHROMIUM")
                .with_ignored_flag(true),
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(executable: &Path, check: Check) -> Result<(), Failed> {
    let outcome = (|| {
        let folder = tempfile::tempdir()?;
        let mut page = Page::start(executable)?;
        check(&mut page, folder.path())
    })();
    outcome.map_err(|error| error.to_string().into())
}

/// Writes a run's pages and answers the path of one of them; `None`: of the summary.
fn write(fixture: &Fixture, folder: &Path, sample: Option<usize>) -> Fallible<PathBuf> {
    let target = Utf8Path::from_path(folder).ok_or("a folder whose path is no UTF-8")?;
    hotcell_report::html::write(
        &fixture.report,
        Some(&fixture.facts),
        &fixture.turns,
        &fixture.outputs,
        target,
    )?;
    Ok(match sample {
        None => folder.join("report.html"),
        Some(place) => {
            let (_, sample) = fixture.report.samples.get_index(place).ok_or("no such sample")?;
            folder.join(format!(
                "samples/{}.html",
                hotcell_schema::names::file_digits(&sample.digest)
            ))
        }
    })
}

#[track_caller]
fn equal(page: &mut Page, expression: &str, wanted: Value) -> Fallible<()> {
    let found = page.eval(expression)?;
    if found == wanted {
        Ok(())
    } else {
        Err(format!("`{expression}` is {found}, not {wanted}").into())
    }
}

fn holds(page: &mut Page, expression: &str) -> Fallible<()> {
    equal(page, expression, json!(true))
}

/// Nothing was asked for but the page itself, and no script failed.
fn alone(page: &Page, file: &Path) -> Fallible<()> {
    let own = format!("file://{}", file.display());
    let others: Vec<&String> = page
        .requests
        .iter()
        .filter(|url| **url != own && !url.starts_with("data:"))
        .collect();
    if !others.is_empty() || page.requests.is_empty() {
        return Err(format!("requests: {:?}", page.requests).into());
    }
    if page.errors.is_empty() {
        Ok(())
    } else {
        Err(format!("errors: {:?}", page.errors).into())
    }
}

const BEHAVIOURS: &str = "document.querySelectorAll('#matrix-table tbody tr:not(.group)').length";

fn summary(page: &mut Page, folder: &Path) -> Fallible<()> {
    let fixture = fixture::dropper();
    let file = write(&fixture, folder, None)?;
    page.open(&file)?;
    let mut different: Vec<&String> = fixture
        .report
        .instances
        .iter()
        .flat_map(|instance| &instance.behaviour)
        .collect();
    different.sort();
    different.dedup();
    equal(page, BEHAVIOURS, json!(different.len()))?;
    let cron = different.iter().filter(|line| line.contains("cron.d")).count();
    page.fill("#matrix-filter", "cron.d")?;
    equal(page, BEHAVIOURS, json!(cron))?;
    page.fill("#matrix-filter", "")?;
    page.click("#matrix-differ")?;
    holds(
        page,
        &format!("{BEHAVIOURS} > 0 && {BEHAVIOURS} < {}", different.len()),
    )?;
    holds(
        page,
        "[...document.querySelectorAll('#matrix-table tbody tr')].some(row => row.textContent.includes('SIGSEGV'))",
    )?;
    // One column for each family: four in the matrix are of two families.
    page.eval(
        "(by => { by.value = 'family'; by.dispatchEvent(new Event('change')); })(document.getElementById('matrix-by'))",
    )?;
    page.settle()?;
    equal(
        page,
        "document.querySelectorAll('#matrix-table thead th').length",
        json!(3),
    )?;
    let shown = "[...document.querySelectorAll('#sample-table tbody tr')].filter(row => !row.hidden).length";
    equal(page, shown, json!(7))?;
    page.fill("#sample-filter", "mipsel mozi")?;
    equal(page, shown, json!(1))?;
    page.fill("#sample-filter", "")?;
    page.click("#sample-table th[data-sort=rank] button")?;
    holds(
        page,
        "(ranks => ranks.every((rank, place) => !place || ranks[place - 1] >= rank))([...document.querySelectorAll('#sample-table tbody tr')].map(row => Number(row.cells[3].dataset.rank)))",
    )?;
    alone(page, &file)
}

fn sample(page: &mut Page, folder: &Path) -> Fallible<()> {
    let fixture = fixture::dropper();
    let file = write(&fixture, folder, Some(0))?;
    page.open(&file)?;
    let count = "document.querySelector('.event-count').textContent";
    holds(page, "document.querySelectorAll('.row').length > 10")?;
    page.fill(".event-filter", "cron.d written")?;
    equal(page, "document.querySelectorAll('.row').length", json!(1))?;
    holds(page, &format!("{count}.startsWith('1 of ')"))?;
    // A finding's link shows the event that proves it, whatever the filter hides.
    page.fill(".event-filter", "no event holds this")?;
    equal(page, "document.querySelectorAll('.row').length", json!(0))?;
    let cron = fixture
        .report
        .instances
        .iter()
        .flat_map(|instance| &instance.findings)
        .find(|finding| finding.rule == "persistence-cron")
        .and_then(|finding| finding.evidence.first()?.event)
        .ok_or("no evidence")?;
    page.click(&format!("a.jump[href=\"#event-0-{cron}\"]"))?;
    page.settle()?;
    equal(
        page,
        "document.querySelector('.row.on .seq').textContent",
        json!(cron.to_string()),
    )?;
    holds(
        page,
        "document.querySelector('.detail .mono').textContent.includes('/etc/cron.d/.sysupd')",
    )?;
    // Keys move from there.
    page.press("ArrowDown", 40)?;
    equal(
        page,
        "document.querySelector('.row.on .seq').textContent",
        json!((cron + 1).to_string()),
    )?;
    // Only one kind, then only one process.
    page.click(".event-kinds [data-kind=syscall]")?;
    holds(page, "document.querySelectorAll('.row .k-syscall').length === 0")?;
    page.click(".proc[data-pid=\"102\"]")?;
    holds(
        page,
        "(rows => rows.length > 0 && rows.every(row => row.textContent === '102'))([...document.querySelectorAll('.row .who')])",
    )?;
    alone(page, &file)
}

fn long(page: &mut Page, folder: &Path) -> Fallible<()> {
    let file = write(&fixture::long(100_000), folder, Some(0))?;
    page.open(&file)?;
    holds(
        page,
        "document.querySelector('.event-count').textContent.replace(/\\D/g, '') === '100000'",
    )?;
    let rows = "document.querySelectorAll('.row').length";
    holds(page, &format!("{rows} > 10 && {rows} < 100"))?;
    page.eval("(view => { view.scrollTop = view.scrollHeight; })(document.querySelector('.viewport'))")?;
    page.settle()?;
    holds(
        page,
        "document.querySelector('.canvas').lastElementChild.querySelector('.seq').textContent === '99999'",
    )?;
    holds(page, &format!("{rows} < 100"))?;
    page.fill(".event-filter", "needle-in-the-haystack")?;
    equal(page, rows, json!(1))?;
    alone(page, &file)
}

fn hostile(page: &mut Page, folder: &Path) -> Fallible<()> {
    let fixture = fixture::hostile();
    for sample in [None, Some(0)] {
        let file = write(&fixture, folder, sample)?;
        page.open(&file)?;
        page.settle()?;
        holds(page, "document.title.startsWith('</script><img src=x onerror=')")?;
        equal(
            page,
            "document.querySelectorAll('img, iframe, object, embed, form').length",
            json!(0),
        )?;
        equal(page, "document.scripts.length", json!(2))?;
        holds(
            page,
            "[...document.querySelectorAll('*')].every(node => [...node.attributes].every(attribute => !/^on/i.test(attribute.name)))",
        )?;
        holds(page, "!/[\\u202e\\u200b\\u001b]/.test(document.body.innerText)")?;
        holds(
            page,
            "document.body.innerText.includes('\\u27e8U+202E\\u27e9gpj.exe\\u241b[31m')",
        )?;
        holds(page, "document.body.innerText.includes('{{7*7}}')")?;
        alone(page, &file)?;
        // Even markup that got in would not run: the page's own policy refuses it.
        page.eval("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"document.title = 1\" id=\"in\">x</p>')")?;
        page.click("#in")?;
        holds(page, "document.title !== '1'")?;
    }
    page.fill(".event-filter", "</script><img")?;
    holds(page, "document.querySelectorAll('.row').length > 5")
}

/// The page of what differs between the samples of a bot and hostile ones.
fn changes_page(folder: &Path) -> Fallible<PathBuf> {
    use hotcell_judge::{contents::NoContents, diff};
    let (old, mut new) = (fixture::dropper().report, fixture::dropper().report);
    let hostile = fixture::hostile().report;
    let (mut behaviour, mut finding) = (0, 0);
    for instance in &mut new.instances {
        if instance.behaviour.len() > 3 {
            behaviour += 1;
            instance.behaviour.remove(behaviour % 3);
            instance
                .behaviour
                .extend(hostile.instances.iter().flat_map(|one| one.behaviour.clone()));
            instance.behaviour.sort();
        }
        if let Some(first) = instance.findings.first_mut() {
            finding += 1;
            first.evidence.truncate(finding % 2);
        }
    }
    new.name = hostile.name.clone();
    new.seed += 1;
    new.instances.extend(hostile.instances);
    let side = |report| diff::Side {
        report,
        contents: &NoContents,
    };
    let diff = diff::between(side(&old), side(&new), &|_, _| true);
    let page = hotcell_judge::html::of_runs(&diff, &new.name, "20261122-a", "20261122-b")?;
    let file = folder.join("diff.html");
    std::fs::write(&file, page)?;
    Ok(file)
}

fn changes(page: &mut Page, folder: &Path) -> Fallible<()> {
    let file = changes_page(folder)?;
    for width in [360, 1280] {
        page.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}),
        )?;
        // Scripts are off: nothing on this page needs one.
        page.call("Emulation.setScriptExecutionDisabled", json!({"value": true}))?;
        page.open(&file)?;
        page.call("Emulation.setScriptExecutionDisabled", json!({"value": false}))?;
        holds(page, "document.querySelectorAll('.script .added').length > 5")?;
        holds(page, "document.querySelectorAll('.script .removed').length > 2")?;
        equal(
            page,
            "document.querySelectorAll('img, iframe, object, embed, form').length",
            json!(0),
        )?;
        holds(page, "!/[\\u202e\\u200b\\u001b]/.test(document.body.innerText)")?;
        holds(
            page,
            "[...document.querySelectorAll('.contents a')].every(link => document.querySelector(link.getAttribute('href')))",
        )?;
        holds(page, &format!("document.documentElement.scrollWidth <= {width}"))?;
        alone(page, &file)?;
    }
    Ok(())
}

fn turns(page: &mut Page, folder: &Path) -> Fallible<()> {
    let bars = "document.querySelectorAll('.cores .scroll rect[class^=g]').length";
    for (name, rounds) in [("few", 12), ("many", 5_000)] {
        let fixture = fixture::on_cores(rounds);
        let file = write(&fixture, &folder.join(name), None)?;
        page.open(&file)?;
        // Each turn where they can be told apart, and never more than can be drawn.
        match rounds {
            12 => equal(page, bars, json!(fixture.turns.turns.len()))?,
            _ => holds(page, &format!("{bars} > 50 && {bars} <= 2000"))?,
        }
        for text in [
            "core 0",
            "control",
            "core 1",
            "chores",
            "core 2",
            "pool, 66% busy",
            "core 3",
        ] {
            holds(
                page,
                &format!(
                    "[...document.querySelectorAll('.cores text')].some(node => node.textContent === '{text}')"
                ),
            )?;
        }
        equal(
            page,
            "document.querySelectorAll('.legend li').length",
            json!(fixture.turns.cells.len()),
        )?;
        // Every bar lies in its core's row, within the times that are shown, says what it is, and has a colour.
        holds(
            page,
            "[...document.querySelectorAll('.cores .scroll rect[class^=g]')].every(bar => {
                const box = bar.getBoundingClientRect();
                const rail = [...document.querySelectorAll('.cores .rail')].map(rail => rail.getBoundingClientRect())
                    .find(rail => rail.top <= box.top + 1 && rail.bottom >= box.bottom - 1);
                return rail && rail.left <= box.left + 1 && rail.right >= box.right - 1
                    && /\\d.* core [23]/.test(bar.querySelector('title').textContent)
                    && getComputedStyle(bar).fill !== 'rgb(0, 0, 0)';
            })",
        )?;
        alone(page, &file)?;
    }
    // Where nobody reserved cores there is nothing of it.
    let file = write(&fixture::dropper(), &folder.join("none"), None)?;
    page.open(&file)?;
    equal(page, "document.querySelectorAll('.cores').length", json!(0))
}

fn phone(page: &mut Page, folder: &Path) -> Fallible<()> {
    page.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true}),
    )?;
    for (name, fixture) in [
        ("dropper", fixture::dropper()),
        ("hostile", fixture::hostile()),
        ("cores", fixture::on_cores(12)),
    ] {
        let folder = folder.join(name);
        for sample in [None, Some(0)] {
            let file = write(&fixture, &folder, sample)?;
            page.open(&file)?;
            page.settle()?;
            let width = page.eval("document.documentElement.scrollWidth")?;
            if width.as_u64().is_none_or(|width| width > 360) {
                let wide = page.eval(
                    "[...document.querySelectorAll('main *')].filter(node => node.getBoundingClientRect().right > 361 && !node.closest('.scroll, pre')).slice(0, 5).map(node => node.tagName + '.' + node.className)",
                )?;
                return Err(format!("{} is {width} wide: {wide}", file.display()).into());
            }
        }
    }
    Ok(())
}

fn dark(page: &mut Page, folder: &Path) -> Fallible<()> {
    let file = write(&fixture::dropper(), folder, None)?;
    let mut colours = Vec::new();
    for scheme in ["light", "dark"] {
        page.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        )?;
        page.open(&file)?;
        colours.push(page.eval(
            "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color",
        )?);
    }
    if colours.first() == colours.last() {
        return Err(format!("the same colours in light and dark: {colours:?}").into());
    }
    Ok(())
}
