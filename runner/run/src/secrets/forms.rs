//! How a secret can stand in what a program writes: as it is, and as programs encode it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

use super::SecretValue;

/// Shorter values are not looked for: they would stand in any text.
const MIN_VALUE: usize = 4;
/// Shorter pieces of what is encoded together with something else are not looked for.
const MIN_PIECE: usize = 8;

/// Bytes that give a secret away.
pub(crate) type Form = Zeroizing<Vec<u8>>;

/// All forms of a value: itself, as JSON strings hold it, in base64 wherever in the encoded bytes it begins, in URLs, in
/// hexadecimal.
pub(super) fn of(value: &[u8]) -> Vec<Form> {
    if value.len() < MIN_VALUE {
        return Vec::new();
    }
    let mut forms: Vec<Form> = vec![value.to_vec().into()];
    let mut add = |form: Vec<u8>| {
        let form = Form::from(form);
        if !forms.contains(&form) {
            forms.push(form);
        }
    };
    if let Ok(text) = std::str::from_utf8(value) {
        json(text).into_iter().for_each(&mut add);
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        add(engine.encode(value).into_bytes());
        // Bytes before it shift what is encoded; the groups that are of its bytes alone are always the same.
        for skipped in 0..3 {
            let rest = value.get(skipped..).unwrap_or_default();
            let groups = rest.get(..rest.len() - rest.len() % 3).unwrap_or_default();
            let piece = engine.encode(groups).into_bytes();
            if piece.len() >= MIN_PIECE {
                add(piece);
            }
        }
    }
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or(b'0');
        let pair = |byte: u8| [digit(byte >> 4), digit(byte & 15)];
        add(value.iter().flat_map(|byte| pair(*byte)).collect());
        // As browsers do it, as shells do it for paths, and with a plus for a space.
        for (kept, space) in [
            ("-_.~", "%20"),
            ("-_.~/", "%20"),
            ("-_.*", "+"),
            ("-_.!~*'()", "%20"),
        ] {
            let mut form = Vec::with_capacity(value.len() * 3);
            for byte in value {
                match byte {
                    b' ' => form.extend_from_slice(space.as_bytes()),
                    byte if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(byte) => {
                        form.push(*byte)
                    }
                    byte => {
                        form.push(b'%');
                        form.extend(pair(*byte));
                    }
                }
            }
            add(form);
        }
    }
    // Where one stands in another, the longer is found first.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms
}

/// The insides of JSON strings: with what must be escaped, and with all that can be.
fn json(text: &str) -> Vec<Vec<u8>> {
    let Ok(least) = serde_json::to_string(text).map(Zeroizing::new) else {
        return Vec::new();
    };
    let least = least.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let least = least.unwrap_or_default();
    let ascii = |upper: bool| {
        let mut all = String::with_capacity(least.len() * 2);
        for character in least.chars() {
            if character.is_ascii() {
                all.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                all.push_str(&match upper {
                    true => format!("\\u{unit:04X}"),
                    false => format!("\\u{unit:04x}"),
                });
            }
        }
        all.into_bytes()
    };
    vec![
        least.as_bytes().to_vec(),
        least.replace('/', "\\/").into_bytes(),
        ascii(false),
        ascii(true),
    ]
}

/// The end of a text, from a place on, with `<secret NAME>` for every form of these values: longer forms first. One that
/// begins before that place is replaced as a whole.
pub(crate) fn redact<'v>(
    text: &[u8],
    from: usize,
    values: impl Iterator<Item = (&'v str, &'v SecretValue)>,
) -> Vec<u8> {
    let mut forms: Vec<(&[u8], &str)> = values
        .flat_map(|(name, value)| value.forms().iter().map(move |form| (form.as_slice(), name)))
        .collect();
    forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
    // Places of what is replaced: begin, end, name. A longer form keeps shorter ones out.
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    for (form, name) in forms {
        for begin in Finder::new(form).find_iter(text) {
            let end = begin + form.len();
            if found
                .iter()
                .all(|(other, until, _)| end <= *other || *until <= begin)
            {
                found.push((begin, end, name));
            }
        }
    }
    found.sort_unstable();
    let mut redacted = Vec::with_capacity(text.len().saturating_sub(from));
    let mut at = from;
    for (begin, end, name) in found {
        if end <= at {
            continue;
        }
        redacted.extend_from_slice(text.get(at..begin).unwrap_or_default());
        redacted.extend_from_slice(format!("<secret {name}>").as_bytes());
        at = end;
    }
    redacted.extend_from_slice(text.get(at..).unwrap_or_default());
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> SecretValue {
        SecretValue::new(bytes.to_vec().into())
    }

    fn redacted(text: &str, secret: &str) -> String {
        let value = value(secret.as_bytes());
        let text = redact(text.as_bytes(), 0, [("it", &value)].into_iter());
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn every_usual_way_to_write_a_secret_is_found() {
        let secret = "p/ss wörd \"quoted\"";
        for text in [
            secret.to_owned(),
            "p/ss wörd \\\"quoted\\\"".into(),
            "p\\/ss wörd \\\"quoted\\\"".into(),
            "p/ss w\\u00f6rd \\\"quoted\\\"".into(),
            "p%2Fss%20w%C3%B6rd%20%22quoted%22".into(),
            "p/ss%20w%c3%b6rd%20%22quoted%22".into(),
            "p%2Fss+w%C3%B6rd+%22quoted%22".into(),
            "702f73732077c3b672642022".to_owned() + "71756f74656422",
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
        ] {
            let shown = redacted(&format!("<{text}>"), secret);
            assert_eq!(shown, "<<secret it>>", "{text}");
        }
        // With something before it, whatever its length: no six letters of it remain.
        for before in ["", "u", "us", "use"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}{secret}:more"));
            let shown = redacted(&text, secret);
            assert!(shown.contains("<secret it>"), "{shown}");
            let alone = STANDARD_NO_PAD.encode(secret);
            assert!(!shown.contains(alone.get(6..14).unwrap_or("?")), "{shown}");
        }
        assert_eq!(redacted("abc", "abc"), "abc", "too short");
    }

    #[test]
    fn a_cut_never_shows_a_part() {
        let value = value(b"hunter2-and-more");
        let text = b"x hunter2-and-more y";
        for from in 0..text.len() {
            let shown = redact(text, from, [("it", &value)].into_iter());
            let shown = String::from_utf8(shown).expect("text");
            for part in ["hunter", "and", "more", "2-", "re y"] {
                assert!(!shown.contains(part), "{from}: {shown}");
            }
        }
        let shown = redact(text, 18, [("it", &value)].into_iter());
        assert_eq!(shown, b" y");
    }
}
