//! Alternatives that a Debian package registers: `update-alternatives --install …` in the script that runs when it has been
//! unpacked. Nothing is run. Only commands whose words are written out are understood; what a script computes (a loop, a
//! variable) is passed over.

use hotcell_schema::unpack::{Alternative, AlternativeLink};

/// The member that holds the script.
pub(super) const SCRIPT: &str = "DEBIAN/postinst";
/// Bytes of it that are read; the longest of Debian 12 have some ten thousand.
pub(super) const MAX_SCRIPT: usize = 256 << 10;
/// Alternatives of a package, and links that come along with one: the C compilers have some thirty.
const MAX_ALTERNATIVES: usize = 256;
const MAX_SLAVES: usize = 64;

/// A word of a command; nothing where the shell would have to compute it.
type Word = Option<String>;

/// The alternatives that a script registers, in its order.
pub(super) fn of(script: &[u8]) -> Vec<Alternative> {
    let script = String::from_utf8_lossy(script);
    let commands = commands(&script).into_iter();
    let found = commands.filter_map(|command| alternative(&command));
    found.take(MAX_ALTERNATIVES).collect()
}

/// The commands of a script as far as a shell would tell them apart by their words alone.
fn commands(script: &str) -> Vec<Vec<Word>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut rest = script.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => match rest.next() {
                // The line goes on.
                Some('\n') | None => {}
                literal => put(&mut word, literal),
            },
            quote @ ('"' | '\'') => {
                // An empty text is a word too.
                word.get_or_insert_with(|| Some(String::new()));
                for inside in rest.by_ref().take_while(|inside| *inside != quote) {
                    let computed = quote == '"' && "$`\\".contains(inside);
                    put(&mut word, Some(inside).filter(|_| !computed));
                }
            }
            '$' | '`' | '*' | '?' | '[' | '~' => put(&mut word, None),
            '#' if word.is_none() => while rest.next_if(|next| *next != '\n').is_some() {},
            ' ' | '\t' | '\r' => end(&mut word, &mut commands),
            '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => {
                end(&mut word, &mut commands);
                if commands.last().is_some_and(|command| !command.is_empty()) {
                    commands.push(Vec::new());
                }
            }
            literal => put(&mut word, Some(literal)),
        }
    }
    end(&mut word, &mut commands);
    commands
}

/// A character more of a word, or what makes it one that is computed.
fn put(word: &mut Option<Word>, text: Option<char>) {
    let word = word.get_or_insert_with(|| Some(String::new()));
    match (word.as_mut(), text) {
        (Some(known), Some(text)) => known.push(text),
        _ => *word = None,
    }
}

fn end(word: &mut Option<Word>, commands: &mut [Vec<Word>]) {
    if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
        command.push(word);
    }
}

/// The alternative that a command registers.
fn alternative(command: &[Word]) -> Option<Alternative> {
    let said = |word: &Word, text: &str| word.as_deref() == Some(text);
    let at = command
        .iter()
        .position(|word| said(word, "update-alternatives") || said(word, "/usr/bin/update-alternatives"))?;
    let options = command.get(at.checked_add(1)?..)?;
    let install = options.iter().position(|word| said(word, "--install"))?;
    // Options without values may stand before it, and none that leads elsewhere.
    let before = options.get(..install)?;
    let harmless = ["--quiet", "--verbose", "--force", "--skip-auto"];
    if !before
        .iter()
        .all(|word| harmless.iter().any(|option| said(word, option)))
    {
        return None;
    }
    let words = options.get(install.checked_add(1)?..)?;
    let master = link(words)?;
    let priority = words.get(3)?.as_ref()?.parse().ok()?;
    let mut slaves = Vec::new();
    for (at, _) in words.iter().enumerate().filter(|(_, word)| said(word, "--slave")) {
        slaves.extend(words.get(at.saturating_add(1)..).and_then(link));
    }
    slaves.truncate(MAX_SLAVES);
    Some(Alternative {
        master,
        priority,
        slaves,
    })
}

/// Three words as the links of an alternative.
fn link(words: &[Word]) -> Option<AlternativeLink> {
    let text = |at: usize| words.get(at)?.clone();
    let (link, name, path) = (text(0)?, text(1)?, text(2)?);
    let is_path = |path: &str| {
        let mut parts = path.strip_prefix('/')?.split('/');
        parts.all(is_name).then_some(())
    };
    is_path(&link)?;
    is_path(&path)?;
    is_name(&name).then_some(AlternativeLink { link, name, path })
}

fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && !part.contains(|character: char| character == '/' || character.is_control())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn link(link: &str, name: &str, path: &str) -> AlternativeLink {
        let [link, name, path] = [link, name, path].map(str::to_owned);
        AlternativeLink { link, name, path }
    }

    #[test]
    fn what_is_written_out_is_understood() {
        let script = b"#!/bin/sh\nset -e\n# update-alternatives --install /usr/bin/no no /usr/bin/not 1\n\
            if [ \"$1\" = \"configure\" ]; then update-alternatives --quiet --install /usr/bin/awk 'awk' \\\n\
            \t\"/usr/bin/mawk\" 5 \\\n  --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \\\n\
            --slave /usr/bin/nawk nawk /usr/bin/mawk || true\nfi\n\
            update-alternatives --remove x /usr/bin/y\nupdate-alternatives --install /bin/e editor /bin/nano -7;";
        let found = of(script);
        assert_eq!(
            found,
            [
                Alternative {
                    master: link("/usr/bin/awk", "awk", "/usr/bin/mawk"),
                    priority: 5,
                    slaves: vec![
                        link(
                            "/usr/share/man/man1/awk.1.gz",
                            "awk.1.gz",
                            "/usr/share/man/man1/mawk.1.gz"
                        ),
                        link("/usr/bin/nawk", "nawk", "/usr/bin/mawk"),
                    ],
                },
                Alternative {
                    master: link("/bin/e", "editor", "/bin/nano"),
                    priority: -7,
                    slaves: Vec::new(),
                },
            ]
        );
    }

    #[test]
    fn what_is_computed_or_no_path_is_passed_over() {
        for words in [
            "/usr/bin/$i $i /usr/bin/vim 30",
            "/usr/bin/vi vi \"/usr/bin/vim.$variant\" 30",
            "/usr/bin/vi vi `which vim` 30",
            "/usr/bin/vi vi /usr/bin/vim* 30",
            "/usr/bin/vi vi /usr/bin/vim high",
            "/usr/bin/vi vi /usr/bin/vim 99999999999",
            "/usr/bin/vi vi /usr/bin/vim",
            "usr/bin/vi vi /usr/bin/vim 1",
            "/usr/bin/vi ../vi /usr/bin/vim 1",
            "/usr/bin/vi v/i /usr/bin/vim 1",
            "/usr/bin/vi .. /usr/bin/vim 1",
            "/usr/../vi vi /usr/bin/vim 1",
            "/ vi /usr/bin/vim 1",
            "/usr/bin/vi vi '/usr/bin/vi\nm' 1",
            "/usr/bin/vi '' /usr/bin/vim 1",
        ] {
            let script = format!("update-alternatives --install {words}\n");
            assert_eq!(of(script.as_bytes()), [], "{words}");
        }
        let elsewhere = b"update-alternatives --altdir /tmp --install /usr/bin/vi vi /usr/bin/vim 1";
        assert_eq!(of(elsewhere), []);
        // A link that comes along and is computed is left out alone.
        let found = of(b"update-alternatives --install /b/a a /b/c 1 --slave $x y z --slave /b/d d /b/e");
        assert_eq!(found[0].slaves, [link("/b/d", "d", "/b/e")]);
    }

    #[test]
    fn what_is_hostile_is_bounded() {
        let one = "update-alternatives --install /b/a a /b/c 1";
        let many = format!("{one}\n").repeat(1000);
        assert_eq!(of(many.as_bytes()).len(), MAX_ALTERNATIVES);
        let slaves = format!("{one}{}", " --slave /b/a a /b/c".repeat(1000));
        assert_eq!(of(slaves.as_bytes())[0].slaves.len(), MAX_SLAVES);
        for open in ["'", "\"", "\\", "(", "#", "`", "\u{0}\u{ff}", "\"\\\""] {
            let script = format!("{open}{one}{open}");
            assert!(of(script.as_bytes()).len() <= 1, "{open}");
        }
    }
}
