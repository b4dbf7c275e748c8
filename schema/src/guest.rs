//! How guest addresses, bytes and text are written in JSON, without loss.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A guest address or register value, written as `"0x…"`: JSON numbers lose precision above 2^53.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .filter(|digits| {
                matches!(digits.len(), 1..=16) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an address like 0x1000")))
    }
}

impl JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^0x[0-9a-fA-F]{1,16}$", "description": "an address or register value: 0x and up to 16 hexadecimal digits"})
    }
}

/// Raw bytes, written as lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hex(pub Vec<u8>);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        hex::decode(&digits)
            .map(Self)
            .map_err(|error| serde::de::Error::custom(format!("not hexadecimal: {error}")))
    }
}

impl JsonSchema for Hex {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[ \\t\\r\\n]*([0-9a-fA-F][ \\t\\r\\n]*[0-9a-fA-F][ \\t\\r\\n]*)*$", "description": "bytes in hexadecimal; white space is allowed"})
    }
}

/// Guest bytes as text: UTF-8 is kept, a backslash is doubled, every other byte becomes `\xNN`.
/// The original bytes can be read back.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                out.push('\\');
            }
            out.push(character);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Like [`text`], of at most `limit` bytes; what was cut is said as `…(+N)`.
pub fn text_up_to(bytes: &[u8], limit: usize) -> String {
    match bytes.get(..limit) {
        Some(head) if head.len() < bytes.len() => format!("{}…(+{})", text(head), bytes.len() - limit),
        _ => text(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_utf8_and_escapes_the_rest() {
        assert_eq!(text("grüß\\n".as_bytes()), "grüß\\\\n");
        assert_eq!(text(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(text_up_to(b"abcdef", 4), "abcd…(+2)");
        assert_eq!(text_up_to(b"abcd", 4), "abcd");
    }
}
