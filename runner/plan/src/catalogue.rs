//! The catalogue of diagnostics: a page for each code, in `catalogue/<code>.md`. The pages are the one source: `hotcell help`
//! shows them, and tests hold the codes' short meanings and every example to them.

use include_dir::{Dir, include_dir};

use crate::diagnostics::{CODES, nearest};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/catalogue");

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The code, for instance `E0101`.
    pub code: &'static str,
    /// Its meaning in a line.
    pub about: &'static str,
    /// The whole page, in Markdown. Its first line is `# <code>: <meaning>`.
    pub text: &'static str,
}

/// The page of a code; upper and lower case are the same.
pub fn page(code: &str) -> Option<Page> {
    let (code, about) = CODES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code))?;
    let text = PAGES.get_file(format!("{code}.md"))?.contents_utf8()?;
    Some(Page { code, about, text })
}

/// Every page, by code.
pub fn pages() -> impl Iterator<Item = Page> {
    CODES.iter().filter_map(|(code, _)| page(code))
}

/// The code that was probably meant.
pub fn nearest_code(wrong: &str) -> Option<&'static str> {
    nearest(wrong, CODES.iter().map(|(code, _)| *code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        for (code, about) in CODES {
            let page = page(code).unwrap_or_else(|| panic!("{code} has no page"));
            assert_eq!(
                page.text.lines().next(),
                Some(format!("# {code}: {about}").as_str()),
                "the page and the code say different things"
            );
            assert!(
                page.text
                    .lines()
                    .all(|line| line.len() <= 140 || line.contains('"')),
                "{code}"
            );
        }
        for file in PAGES.files() {
            let name = file
                .path()
                .file_stem()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            assert!(
                CODES.iter().any(|(code, _)| *code == name),
                "{name}.md has no code"
            );
        }
    }
}
