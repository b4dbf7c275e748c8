//! Foreign text made harmless and honest: nothing in it can move a cursor, turn the reading direction or hide.

use std::borrow::Cow;

/// The text in one line: control characters become their pictures (`␛`, `␊`), characters that are invisible or change the
/// direction of text become their number (`⟨U+202E⟩`).
pub fn visible(text: &str) -> Cow<'_, str> {
    show(text, false)
}

/// Like [`visible`], but line feeds and tabs stay what they are.
pub fn visible_block(text: &str) -> Cow<'_, str> {
    show(text, true)
}

fn show(text: &str, block: bool) -> Cow<'_, str> {
    let plain = |c: char| !is_hidden(c) || (block && (c == '\n' || c == '\t'));
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if plain(c) {
            out.push(c);
        } else {
            push_mark(&mut out, c);
        }
    }
    Cow::Owned(out)
}

fn push_mark(out: &mut String, c: char) {
    let number = u32::from(c);
    let picture = match number {
        0..=0x1f => char::from_u32(0x2400 + number),
        0x7f => Some('\u{2421}'),
        _ => None,
    };
    match picture {
        Some(picture) => out.push(picture),
        None => out.push_str(&format!("⟨U+{number:04X}⟩")),
    }
}

/// Whether a character does something other than being seen: Unicode's control and format characters, separators of lines
/// and paragraphs, fillers and variation selectors, private use.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(u32::from(c),
        0..=0x1f | 0x7f..=0x9f | 0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2
        | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
        | 0x3164 | 0xe000..=0xf8ff | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x110bd | 0x110cd
        | 0x13430..=0x1345f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0x10ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_turns_or_hides() {
        assert_eq!(visible("a\u{202e}b\x1b[31m\n"), "a⟨U+202E⟩b␛[31m␊");
        assert_eq!(visible_block("a\n\tb\r"), "a\n\tb␍");
        assert_eq!(visible("\u{200b}\u{feff}\u{e0041}"), "⟨U+200B⟩⟨U+FEFF⟩⟨U+E0041⟩");
    }

    #[test]
    fn plain_text_of_any_script_stays() {
        let text = "grüß Gott, שלום, 你好 → ✓";
        assert!(matches!(visible(text), Cow::Borrowed(same) if same == text));
    }
}
