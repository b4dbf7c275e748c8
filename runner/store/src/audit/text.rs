//! Short texts of people, and times: checked when they come in, escaped when they are shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text of 1 to `MAX` bytes. Shown, its control characters and those that turn the direction of writing are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MAX: usize>(String);

/// A name: of a user, a cell, a version.
pub type Name = Text<128>;
/// Why something was done.
pub type Reason = Text<1024>;

/// The text is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text has {length} bytes, and 1 to {most} are allowed")]
pub struct TextLength {
    /// Bytes it has.
    pub length: usize,
    /// Most that it may have.
    pub most: usize,
}

impl<const MAX: usize> Text<MAX> {
    /// The text as it was given; not for a terminal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = TextLength;

    fn try_from(text: String) -> Result<Self, TextLength> {
        match text.len() {
            length if (1..=MAX).contains(&length) => Ok(Self(text)),
            length => Err(TextLength { length, most: MAX }),
        }
    }
}

impl<const MAX: usize> FromStr for Text<MAX> {
    type Err = TextLength;

    fn from_str(text: &str) -> Result<Self, TextLength> {
        // Not copied before it is known to be short.
        match text.len() {
            length if length > MAX => Err(TextLength { length, most: MAX }),
            _ => text.to_owned().try_into(),
        }
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0, f)
    }
}

/// Writes a text so that it cannot do anything to a terminal or hide a part of itself.
fn shown(text: &str, to: &mut impl fmt::Write) -> fmt::Result {
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        // A backslash too: else nobody could tell an escape from a text that looks like one.
        match character {
            '\\' => to.write_str("\\\\")?,
            character if character.is_control() || turns || is_separator(character) => {
                write!(to, "{}", character.escape_unicode())?;
            }
            character => to.write_char(character)?,
        }
    }
    Ok(())
}

/// What ends a line without being a control character.
fn is_separator(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

/// At most so many characters of a parser's message, which may quote what it read.
pub(super) fn message(error: &impl fmt::Display) -> String {
    const MOST: usize = 200;
    let text = error.to_string();
    let head: String = text.chars().take(MOST).collect();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = shown(&head, &mut out);
    if head.len() < text.len() {
        out.push('…');
    }
    out
}

/// A moment, RFC 3339 with capital `T` and `Z`: `2026-11-22T15:00:00Z`, `2026-11-22T16:00:00.25+01:00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(String);

/// The text is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time like 2026-11-22T15:00:00Z (RFC 3339)")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        match is_time(text) {
            Some(()) => Ok(Self(text.to_owned())),
            None => Err(NotATime),
        }
    }
}

impl TryFrom<String> for Time {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3339, section 5.6.
fn is_time(text: &str) -> Option<()> {
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    let clock = match time.strip_suffix('Z') {
        Some(clock) => clock,
        None => {
            let at = time.rfind(['+', '-'])?;
            let (clock, offset) = time.split_at_checked(at)?;
            let [hours, minutes] = numbers(offset.get(1..)?, ':', [2, 2])?;
            (hours < 24 && minutes < 60).then_some(clock)?
        }
    };
    let clock = match clock.split_once('.') {
        Some((clock, fraction)) => {
            let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
            (digits && (1..=9).contains(&fraction.len())).then_some(clock)?
        }
        None => clock,
    };
    let [hours, minutes, seconds] = numbers(clock, ':', [2, 2, 2])?;
    // 60 is a leap second.
    ((1..=days).contains(&day) && hours < 24 && minutes < 60 && seconds <= 60).then_some(())
}

/// Numbers of so many digits each, and nothing else.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u32; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let right = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = right.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_3339() {
        for right in [
            "2026-11-22T15:00:00Z",
            "2024-02-29T23:59:60.123456789Z",
            "2026-11-22T15:00:00.5+01:00",
            "2000-02-29T00:00:00-23:59",
        ] {
            let time: Time = right.parse().unwrap();
            assert_eq!(time.to_string(), right);
        }
        for wrong in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22 15:00:00Z",
            "2026-11-22t15:00:00z",
            "2026-11-22T15:00:00",
            "2026-11-22T15:00Z",
            "2026-13-22T15:00:00Z",
            "2026-02-29T15:00:00Z",
            "1900-02-29T15:00:00Z",
            "2026-11-00T15:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T15:60:00Z",
            "2026-11-22T15:00:61Z",
            "2026-11-22T15:00:00.Z",
            "2026-11-22T15:00:00.1234567890Z",
            "2026-11-22T15:00:00+24:00",
            "2026-11-22T15:00:00+1:00",
            "2026-11-22T15:00:00+01:00Z",
            "2026-11-22T+5:00:00Z",
            "2026-11-22T15:00:00ZZ",
            "٢026-11-22T15:00:00Z",
            "é",
        ] {
            assert_eq!(wrong.parse::<Time>(), Err(NotATime), "{wrong}");
        }
    }

    #[test]
    fn texts_are_bounded_and_do_nothing_to_a_terminal() {
        type Four = Text<4>;
        assert_eq!("é12".parse::<Four>().unwrap().as_str(), "é12");
        assert_eq!("".parse::<Four>(), Err(TextLength { length: 0, most: 4 }));
        assert_eq!("é123".parse::<Four>(), Err(TextLength { length: 5, most: 4 }));
        assert!(serde_json::from_str::<Four>("\"12345\"").is_err());

        let text: Reason = "a\u{1b}[2J\r\n\u{9b}\u{202e}\u{2028}\\u{1b}ü".parse().unwrap();
        assert_eq!(
            text.to_string(),
            "a\\u{1b}[2J\\u{d}\\u{a}\\u{9b}\\u{202e}\\u{2028}\\\\u{1b}ü"
        );
    }

    #[test]
    fn messages_are_short() {
        let long = "x\u{7}".repeat(10_000);
        let message = message(&long);
        assert!(message.len() < 1000 && !message.contains('\u{7}'), "{message}");
        assert!(message.ends_with('…'));
    }
}
