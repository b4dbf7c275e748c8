//! How variables are named in expressions, and how a text is written so that it is read as it is.

/// Writes a text so that it is read as it is: two signs for each one before a `{`.
pub(super) fn escape(text: &str, out: &mut String) {
    let mut signs = 0;
    for character in text.chars() {
        if character == '{' {
            out.extend(std::iter::repeat_n('$', signs));
        }
        signs = if character == '$' { signs + 1 } else { 0 };
        out.push(character);
    }
}

/// Whether an expression means a variable and does not name it in the one way there is: `vars["x"]`, ` vars . x`, `vars`.
pub(super) fn is_bare(expression: &str) -> bool {
    mentions(expression).any(|(name, _)| name.is_none())
}

/// The variables that an expression names, and where each stands.
pub(crate) fn reads(expression: &str) -> impl Iterator<Item = (&str, std::ops::Range<usize>)> {
    mentions(expression).filter_map(|(name, at)| Some((name?, at)))
}

/// Where an expression says `vars`, outside of quoted texts: with the name of a variable, or without one.
fn mentions(expression: &str) -> impl Iterator<Item = (Option<&str>, std::ops::Range<usize>)> {
    let mut at = 0;
    let mut quote: Option<char> = None;
    let mut before = ' ';
    std::iter::from_fn(move || {
        loop {
            let rest = expression.get(at..)?;
            let character = rest.chars().next()?;
            let starts = quote.is_none() && !(before.is_alphanumeric() || before == '_' || before == '.');
            if starts && let Some(after) = rest.strip_prefix("vars") {
                let named = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
                let name = after.strip_prefix('.').unwrap_or_default();
                let length = name.bytes().take_while(named).count();
                let start = at;
                if length > 0 {
                    at += "vars.".len() + length;
                    before = 'x';
                    return Some((name.get(..length), start..at));
                }
                if !after.starts_with(|next: char| next.is_alphanumeric() || next == '_') {
                    at += "vars".len();
                    before = 's';
                    return Some((None, start..at));
                }
            }
            match (quote, character) {
                (Some(_), '\\') => at += rest.chars().nth(1).map_or(0, char::len_utf8),
                (Some(open), closing) if open == closing => quote = None,
                (None, '"' | '\'') => quote = Some(character),
                _ => {}
            }
            at += character.len_utf8();
            before = character;
        }
    })
}
