//! Names of instances: short for people, and safe for file names. The full name stays what JSON and keys hold.

use crate::digest::Digest;
use crate::report::{InstanceReport, Report};

/// Hexadecimal digits of a digest in a short name.
const SHORT_DIGITS: usize = 8;
/// Greatest number of characters of one value in a short name.
const SHORT_VALUE: usize = 48;
/// Hexadecimal digits of a digest in a file name: 128 bits.
const FILE_DIGITS: usize = 32;
/// The same in names of goldens of before: of 48 bits, two values that share them can be made at home.
const OLD_FILE_DIGITS: usize = 12;
/// Greatest number of characters of one value in a file name.
const FILE_VALUE: usize = 40;

/// The name of an instance for people: `run[sample=busybox-3d9f2889]`. A digest is cut and stands behind the name of its
/// sample, where it has one (`name_of`). Two instances can have the same short name; their full names differ.
pub fn short_name<'v, 'n>(
    stage: &str,
    axes: impl IntoIterator<Item = (&'v str, &'v str)>,
    name_of: impl Fn(&str) -> Option<&'n str>,
) -> String {
    let mut out = String::from(stage);
    let mut any = false;
    for (axis, value) in axes {
        out.push(if any { ',' } else { '[' });
        any = true;
        out.push_str(axis);
        out.push('=');
        if is_digest(value) {
            if let Some(name) = name_of(value).filter(|name| !name.is_empty()) {
                push_cut(&mut out, name, SHORT_VALUE);
                out.push('-');
            }
            out.push_str(value.get(..SHORT_DIGITS).unwrap_or(value));
        } else {
            push_cut(&mut out, value, SHORT_VALUE);
        }
    }
    if any {
        out.push(']');
    }
    out
}

/// The name of an instance in file names: its values, readable, each with what makes it unique when it had to be changed.
/// ASCII letters, digits, `.`, `-` and `_` only, never longer than 190 bytes.
pub fn file_name<'v, 'n>(
    axes: impl IntoIterator<Item = &'v str>,
    name_of: impl Fn(&str) -> Option<&'n str>,
) -> String {
    named(axes, name_of, FILE_DIGITS)
}

/// [`file_name`] as it was before its digests were long enough that nobody can make two values of one name. Files that bear
/// such a name are still found.
pub fn old_file_name<'v, 'n>(
    axes: impl IntoIterator<Item = &'v str>,
    name_of: impl Fn(&str) -> Option<&'n str>,
) -> String {
    named(axes, name_of, OLD_FILE_DIGITS)
}

fn named<'v, 'n>(
    axes: impl IntoIterator<Item = &'v str>,
    name_of: impl Fn(&str) -> Option<&'n str>,
    digits: usize,
) -> String {
    let mut out = String::new();
    for value in axes {
        if !out.is_empty() {
            out.push('_');
        }
        let (text, digest) = if is_digest(value) {
            let name = name_of(value).unwrap_or_default();
            (readable(name), value.get(..digits).map(str::to_owned))
        } else {
            let text = readable(value);
            let lossy = text != value;
            (text, lossy.then(|| cut(&Digest::of(value.as_bytes()), digits)))
        };
        out.push_str(&text);
        if let Some(digest) = digest {
            if !text.is_empty() {
                out.push('-');
            }
            out.push_str(&digest);
        }
    }
    at_most(out, digits)
}

/// The first digits of a digest that stand in file names: nobody can make two values that share them.
pub fn file_digits(digest: &Digest) -> String {
    cut(digest, FILE_DIGITS)
}

fn cut(digest: &Digest, digits: usize) -> String {
    let mut text = digest.to_string();
    text.truncate(digits);
    text
}

/// A file name of at most 190 bytes out of ASCII text: `only` where there is none, a digest at the end of what is too long.
pub fn bounded(name: String) -> String {
    at_most(name, FILE_DIGITS)
}

fn at_most(name: String, digits: usize) -> String {
    match name.len() {
        0 => "only".into(),
        // File names end at 255 bytes; everything here is ASCII.
        1..=180 => name,
        _ => format!(
            "{}-{}",
            name.get(..150).unwrap_or_default(),
            cut(&Digest::of(name.as_bytes()), digits)
        ),
    }
}

impl Report {
    /// The name of an instance for people; see [`short_name`].
    pub fn short_name(&self, instance: &InstanceReport) -> String {
        let axes = instance
            .axes
            .iter()
            .map(|(axis, value)| (axis.as_str(), value.as_str()));
        short_name(&instance.stage, axes, |id| self.sample_name(id))
    }

    /// The name of an instance in file names; see [`file_name`]. Unique for the values, not for the stage.
    pub fn file_name(&self, instance: &InstanceReport) -> String {
        file_name(instance.axes.values().map(String::as_str), |id| {
            self.sample_name(id)
        })
    }

    /// The same as it was before; see [`old_file_name`].
    pub fn old_file_name(&self, instance: &InstanceReport) -> String {
        old_file_name(instance.axes.values().map(String::as_str), |id| {
            self.sample_name(id)
        })
    }

    /// A text about instances for people; see [`shorten`].
    pub fn shorten(&self, text: &str) -> String {
        shorten(text, |id| self.sample_name(id))
    }

    fn sample_name(&self, id: &str) -> Option<&str> {
        self.samples.get(id).map(|sample| sample.name.as_str())
    }
}

/// A text about instances, with the digests in it cut as in [`short_name`]: whole ones, and nothing that only looks like one.
pub fn shorten<'n>(text: &str, name_of: impl Fn(&str) -> Option<&'n str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    while let Some(start) = rest.bytes().position(|byte| is_digit(&byte)) {
        let run = rest.bytes().skip(start).take_while(is_digit).count();
        let (before, from) = rest.split_at(start);
        let (digits, after) = from.split_at(run);
        out.push_str(before);
        if run == 64 {
            if let Some(name) = name_of(digits).filter(|name| !name.is_empty()) {
                push_cut(&mut out, name, SHORT_VALUE);
                out.push('-');
            }
            out.push_str(digits.get(..SHORT_DIGITS).unwrap_or(digits));
        } else {
            out.push_str(digits);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn push_cut(out: &mut String, text: &str, limit: usize) {
    let mut characters = text.chars();
    out.extend(characters.by_ref().take(limit));
    if characters.next().is_some() {
        out.push('…');
    }
}

/// The start of a text, with everything that file systems and shells could mistake made `-`.
pub fn readable(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().take(FILE_VALUE) {
        match character {
            c if c.is_ascii_alphanumeric() || ".-".contains(c) => out.push(c),
            _ if out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.trim_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3d9f2889d678aabbccddeeff00112233445566778899aabbccddeeff00112233";

    fn name_of(id: &str) -> Option<&'static str> {
        (id == ID).then_some("busy box")
    }

    #[test]
    fn digests_are_cut_and_named() {
        let short = |axes: &[(&'static str, &'static str)]| short_name("run", axes.iter().copied(), name_of);
        assert_eq!(
            short(&[("sample", ID), ("scene", "tour")]),
            "run[sample=busy box-3d9f2889,scene=tour]"
        );
        let other: &'static str = "0000000000000000000000000000000000000000000000000000000000000001";
        assert_eq!(short(&[("item", other)]), "run[item=00000000]");
        assert_eq!(short(&[]), "run");
        let long: &'static str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        assert!(short(&[("a", long)]).chars().count() < 60);
    }

    #[test]
    fn digests_in_texts_are_cut_and_named() {
        let text = format!("`run[sample={ID}]` is failed, {} and cafe are none", &ID[..40]);
        let cut = format!(
            "`run[sample=busy box-3d9f2889]` is failed, {} and cafe are none",
            &ID[..40]
        );
        assert_eq!(shorten(&text, name_of), cut);
    }

    #[test]
    fn file_names_are_safe_and_tell_values_apart() {
        assert_eq!(
            file_name([ID, "tour"], name_of),
            "busy-box-3d9f2889d678aabbccddeeff00112233_tour"
        );
        assert_eq!(old_file_name([ID, "tour"], name_of), "busy-box-3d9f2889d678_tour");
        assert_eq!(old_file_name(["a/b"], name_of), "a-b-c14cddc033f6");
        assert_eq!(file_name([], name_of), "only");
        let names = ["x86_64", "x86-64", "../..", "a/b", "", "ä", &"y".repeat(400)].map(|value| {
            let name = file_name([value], name_of);
            assert!(
                name.len() <= 190
                    && !name.starts_with('.')
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            );
            name
        });
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }

    /// Values whose digests begin alike for 48 bits are made in a second; they shared a file.
    #[test]
    fn nobody_makes_two_values_of_one_file_name() {
        let twin = format!("{}{}", &ID[..12], "0".repeat(52));
        let name_of = |_: &str| Some("busy box");
        assert_eq!(
            old_file_name([ID], name_of),
            old_file_name([twin.as_str()], name_of)
        );
        assert_ne!(file_name([ID], name_of), file_name([twin.as_str()], name_of));
    }
}
