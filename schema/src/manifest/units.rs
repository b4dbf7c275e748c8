//! Durations and sizes, written with their unit.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not a number with a unit that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a whole number followed by a unit.
    #[error("`{0}` is not {1}")]
    Form(String, &'static str),
    /// More than 64 bits hold.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// A unit, how much it is, and how many digits a number of it may have: fewer than would not fit into 64 bits. The patterns
/// below say the same, so that schema and reader accept the same texts.
type Unit = (&'static str, u64, usize);

const TIME_UNITS: [Unit; 6] = [
    ("ns", 1, 18),
    ("us", 1_000, 15),
    ("ms", 1_000_000, 12),
    ("s", 1_000_000_000, 10),
    ("m", 60_000_000_000, 8),
    ("h", 3_600_000_000_000, 6),
];

const SIZE_UNITS: [Unit; 4] = [
    ("B", 1, 18),
    ("KiB", 1 << 10, 15),
    ("MiB", 1 << 20, 12),
    ("GiB", 1 << 30, 9),
];

fn parse(text: &str, units: &[Unit], form: &'static str) -> Result<u64, UnitError> {
    let shown = || text.chars().take(40).collect::<String>();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let found = units.iter().find(|(name, _, _)| *name == unit);
    let (Some((_, factor, most)), false) = (found, number.is_empty()) else {
        return Err(UnitError::Form(shown(), form));
    };
    if digits > *most {
        return Err(UnitError::TooLarge(shown()));
    }
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(shown()))?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| UnitError::TooLarge(shown()))
}

fn write(value: u64, units: &[Unit], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor, _)| value != 0 && value.is_multiple_of(*factor))
        .map_or(("", 1), |(name, factor, _)| (*name, *factor));
    let name = if name.is_empty() {
        units.first().map_or("", |unit| unit.0)
    } else {
        name
    };
    write!(f, "{}{name}", value / factor)
}

/// A length of time in nanoseconds, written like `60s`, `5m` or `10ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// A number of bytes, written like `64MiB`, `4KiB` or `512B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(
            text,
            &TIME_UNITS,
            "a duration like 60s (units: ns, us, ms, s, m, h)",
        )
        .map(Self)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SIZE_UNITS, "a size like 64MiB (units: B, KiB, MiB, GiB)").map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, &TIME_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, &SIZE_UNITS, f)
    }
}

macro_rules! as_text {
    ($name:ident, $pattern:literal, $description:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "description": $description})
            }
        }
    };
}

as_text!(
    Time,
    "^([0-9]{1,18}ns|[0-9]{1,15}us|[0-9]{1,12}ms|[0-9]{1,10}s|[0-9]{1,8}m|[0-9]{1,6}h)$",
    "a duration: a whole number and one of ns, us, ms, s, m, h"
);
as_text!(
    Size,
    "^([0-9]{1,18}B|[0-9]{1,15}KiB|[0-9]{1,12}MiB|[0-9]{1,9}GiB)$",
    "a size: a whole number and one of B, KiB, MiB, GiB"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        assert_eq!("60s".parse(), Ok(Time(60_000_000_000)));
        assert_eq!(Time(60_000_000_000).to_string(), "1m");
        assert_eq!(Time(0).to_string(), "0ns");
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!(Size(1536 << 10).to_string(), "1536KiB");
        for wrong in ["", "60", "s", "1.5s", "-1s", "1 s", "1S", "١s"] {
            assert!(
                matches!(wrong.parse::<Time>(), Err(UnitError::Form(..))),
                "{wrong}"
            );
        }
        assert_eq!("999999h".parse(), Ok(Time(3_600_000_000_000 * 999_999)));
        for large in ["1000000h", "100000000m", "10000000000s", "1000000000000000000ns"] {
            assert!(
                matches!(large.parse::<Time>(), Err(UnitError::TooLarge(_))),
                "{large}"
            );
        }
        assert_eq!(
            "99999999999999h".parse::<Time>(),
            Err(UnitError::TooLarge("99999999999999h".into()))
        );
    }
}
