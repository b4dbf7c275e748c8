//! Whether an output is what its port says. What is wrong is told with its place in the document.

use std::sync::{Arc, OnceLock, PoisonError};

use hotcell_schema::comparison::Comparison;
use hotcell_schema::elf::ElfInfo;
use hotcell_schema::event::{self, Event, Header};
use hotcell_schema::finding::Findings;
use hotcell_schema::job::{LinuxResult, PayloadResult};
use hotcell_schema::stage::PortType;
use jsonschema::{PatternOptions, Validator};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::program::Known;

/// Greatest length of a document in bytes.
pub(super) const MAX_DOCUMENT: u64 = 16 << 20;
/// Most values in a document: each costs the runner far more than its bytes in the file.
const MAX_VALUES: usize = 500_000;
/// Most values in one event.
const MAX_EVENT: usize = 50_000;
/// Deepest value in a document.
const MAX_DEPTH: usize = 100;
/// Of a larger document only the first mistake is looked for: the validator holds all that it is asked for.
const ALL_TOLD: usize = 1 << 20;
/// How many mistakes of a document are told.
const MAX_TOLD: usize = 5;
/// Longest text of one mistake, in characters.
const MAX_TEXT: usize = 300;

/// Schemas, each compiled once in a run.
#[derive(Default)]
pub(super) struct Schemas {
    /// Of the user's own: by their text.
    own: Known<Vec<u8>, Result<Arc<Validator>, String>>,
    findings: OnceLock<Option<Validator>>,
    comparison: OnceLock<Option<Validator>>,
    elf_info: OnceLock<Option<Validator>>,
    linux_result: OnceLock<Option<Validator>>,
    payload_result: OnceLock<Option<Validator>>,
}

impl std::fmt::Debug for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schemas").finish_non_exhaustive()
    }
}

impl Schemas {
    /// Compiles a schema of the user's own.
    fn own(&self, text: &[u8]) -> Result<Arc<Validator>, String> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = own.get(text) {
            return validator.clone();
        }
        let compiled = compile(text).map(Arc::new);
        own.insert(text.to_owned(), compiled.clone());
        compiled
    }

    /// Checks the bytes of an output of a type. `schema`: name and text of the schema that the manifest gives it.
    pub(super) fn check(
        &self,
        port: PortType,
        schema: Option<(&str, &[u8])>,
        bytes: &[u8],
    ) -> Result<(), String> {
        match port {
            PortType::File | PortType::Files | PortType::Any => Ok(()),
            PortType::Events => events(bytes),
            PortType::Document => {
                let document = parse(bytes)?;
                let Some((name, text)) = schema else { return Ok(()) };
                let validator = self
                    .own(text)
                    .map_err(|error| format!("its schema {name} cannot be used: {error}"))?;
                fits(&validator, &document, bytes.len(), name)
            }
            PortType::Findings => {
                let document = parse(bytes)?;
                typed::<Findings>(&self.findings, &document, "findings")?;
                let is = |key: &str, wanted: Json| match document.get(key) == Some(&wanted) {
                    true => Ok(()),
                    false => Err(wrong(
                        &format!("/{key}"),
                        &format!("this version of hotcell reads {wanted} here"),
                    )),
                };
                is("format", "hotcell-findings".into())?;
                is("version", 1.into())
            }
            PortType::Json(name) => {
                let document = parse(bytes)?;
                match name {
                    Comparison::PORT => typed::<Comparison>(&self.comparison, &document, name),
                    "elf-info" => typed::<ElfInfo>(&self.elf_info, &document, name),
                    "linux-result" => typed::<LinuxResult>(&self.linux_result, &document, name),
                    "payload-result" => typed::<PayloadResult>(&self.payload_result, &document, name),
                    other => Err(format!("this version cannot check the type `{other}`")),
                }
            }
        }
    }
}

fn compile(text: &[u8]) -> Result<Validator, String> {
    let schema: Json = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // Patterns in time that grows with the text, whatever the text: it is the program's, which read something hostile.
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(&schema)
        .map_err(|error| short(&error.to_string()))
}

fn parse(bytes: &[u8]) -> Result<Json, String> {
    if bytes.is_empty() {
        return Err("it is empty, where a JSON document is expected".into());
    }
    bounded(bytes, MAX_VALUES)?;
    serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))
}

/// Counts values, and how deep they stand, before memory is given to any of them. Of what is no JSON it counts at least what a
/// reader would meet before it finds that out.
fn bounded(bytes: &[u8], most: usize) -> Result<(), String> {
    let (mut values, mut depth) = (1_usize, 0_usize);
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                // To the end of the string.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => _ = bytes.next(),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("its values are nested deeper than {MAX_DEPTH}"));
        }
        if values > most {
            return Err(format!(
                "it has more than {most} values; give large content as a `file`"
            ));
        }
    }
    Ok(())
}

fn fits(validator: &Validator, document: &Json, length: usize, name: &str) -> Result<(), String> {
    if length > ALL_TOLD {
        return validator.validate(document).map_err(|error| {
            let first = wrong(error.instance_path().as_str(), &error.to_string());
            format!("it does not fit {name}: {first}")
        });
    }
    let mut told: Vec<String> = Vec::new();
    let mut more = 0;
    for error in validator.iter_errors(document) {
        if told.len() < MAX_TOLD {
            told.push(wrong(error.instance_path().as_str(), &error.to_string()));
        } else {
            more += 1;
        }
    }
    if told.is_empty() {
        return Ok(());
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Err(format!("it does not fit {name}: {}", told.join("; ")))
}

/// A mistake at a place in a document.
fn wrong(pointer: &str, text: &str) -> String {
    let pointer = match pointer {
        "" => "the document itself",
        pointer => pointer,
    };
    format!("at {}: {}", short(pointer), short(text))
}

/// Checks a document against one of our own types: first by its schema, which knows the places, then by reading it.
fn typed<T: DeserializeOwned + schemars::JsonSchema>(
    validator: &OnceLock<Option<Validator>>,
    document: &Json,
    name: &str,
) -> Result<(), String> {
    let validator = validator.get_or_init(|| {
        let schema = schemars::schema_for!(T);
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema.as_value())
            .ok()
    });
    if let Some(validator) = validator {
        fits(validator, document, usize::MAX, name)?;
    }
    match T::deserialize(document) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("it is not {name}: {}", short(&error.to_string()))),
    }
}

fn events(bytes: &[u8]) -> Result<(), String> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let expected = || {
        format!(
            "its first line must be a header: {{\"format\": \"{}\", \"version\": {}, \"cell\": …, \"engine\": …, \"os\": …, \"arch\": …}}",
            event::FORMAT,
            event::VERSION
        )
    };
    bounded(first, MAX_EVENT)?;
    match serde_json::from_slice::<Header>(first) {
        Ok(header) if header.format == event::FORMAT && header.version == event::VERSION => {}
        Ok(header) => {
            return Err(format!(
                "{}, and this one says {} {}",
                expected(),
                short(&header.format),
                header.version
            ));
        }
        Err(error) => return Err(format!("{}: {}", expected(), short(&error.to_string()))),
    }
    let mut seq = 0;
    for (number, line) in (2..).zip(lines) {
        if line.is_empty() {
            continue;
        }
        bounded(line, MAX_EVENT).map_err(|error| format!("line {number} is no event: {error}"))?;
        let event: Event = serde_json::from_slice(line)
            .map_err(|error| format!("line {number} is no event: {}", short(&error.to_string())))?;
        if event.seq != seq {
            return Err(format!(
                "line {number}, at /seq: {seq} is expected, since events are numbered without gaps, and {} is there",
                event.seq
            ));
        }
        seq += 1;
    }
    Ok(())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[u8] =
        br#"{"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array",
        "items": {"type": "object", "properties": {"entropy": {"type": "number"}}}}}}"#;

    fn check(port: PortType, bytes: &str) -> Result<(), String> {
        Schemas::default().check(port, Some(("table.json", SCHEMA)), bytes.as_bytes())
    }

    #[track_caller]
    fn says(found: Result<(), String>, words: &[&str]) {
        let error = found.expect_err("wrong");
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_document_is_told_where_it_is_wrong() {
        let check = |text: &str| check(PortType::Document, text);
        assert_eq!(check(r#"{"rows": [{"entropy": 1.5}]}"#), Ok(()));
        says(
            check(r#"{"rows": [{"entropy": 1}, {"entropy": "high"}]}"#),
            &["table.json", "/rows/1/entropy", "\"high\"", "number"],
        );
        says(check("{}"), &["the document itself", "rows"]);
        says(check("{\n'x': 1}"), &["not JSON", "line 2"]);
        says(check(""), &["empty"]);
        says(check(&"[".repeat(100_000)), &["nested deeper than 100"]);
        says(check(&"{\"a\":".repeat(100_000)), &["nested deeper than 100"]);
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        says(check(&deep), &["table.json"]);
        let many = format!(r#"{{"rows": [{}]}}"#, vec![r#"{"entropy": ""}"#; 20].join(","));
        says(check(&many), &["and 15 more"]);
    }

    #[test]
    fn a_document_of_too_many_values_is_not_read() {
        let check = |text: &str| check(PortType::Document, text);
        let many = |one: &str, count: usize| format!("[{}]", vec![one; count].join(","));
        for one in ["0", "[]", "{}", "\"\"", "{\"a\":0}"] {
            let text = many(one, MAX_VALUES);
            assert!((text.len() as u64) < MAX_DOCUMENT);
            says(check(&text), &["more than 500000 values", "`file`"]);
        }
        // What stands in strings is one value, however it looks.
        let quoted = format!("{{\"rows\": [], \"x\": \"{}\"}}", "[,{\\\"".repeat(1_000_000));
        assert_eq!(check(&quoted), Ok(()));
        // What is broken is counted no further than a reader goes.
        says(check("[\"a"), &["not JSON"]);
        says(check("[\"a\\"), &["not JSON"]);
    }

    #[test]
    fn a_pattern_takes_no_longer_than_its_text() {
        let schema = br#"{"type": "string", "pattern": "^(a|a)*(a+)+$"}"#;
        let text = format!("\"{}!\"", "a".repeat(100_000));
        let found = Schemas::default().check(PortType::Document, Some(("x.json", schema)), text.as_bytes());
        says(found, &["x.json"]);
    }

    #[test]
    fn a_schema_that_is_none_is_told() {
        for text in [
            &b"{"[..],
            br#"{"type": 7}"#,
            br#"{"$ref": "http://example.invalid/x"}"#,
        ] {
            let found = Schemas::default().check(PortType::Document, Some(("x.json", text)), b"{}");
            says(found, &["x.json cannot be used"]);
        }
    }

    #[test]
    fn findings_are_ours() {
        let check = |text: &str| check(PortType::Findings, text);
        let good = r#"{"format": "hotcell-findings", "version": 1,
            "findings": [{"rule": "x", "title": "X", "severity": "low"}]}"#;
        assert_eq!(check(good), Ok(()));
        says(
            check(&good.replace("low", "loud")),
            &["/findings/0/severity", "loud"],
        );
        says(check(&good.replace("1,", "2,")), &["/version"]);
        says(check(&good.replace("-findings", "-x")), &["/format"]);
        says(check("[]"), &["the document itself"]);
    }

    #[test]
    fn types_of_other_stages_are_theirs() {
        says(check(PortType::Json("elf-info"), "{}"), &["elf-info"]);
        says(
            check(PortType::Json("linux-result"), r#"{"outcome": 1}"#),
            &["linux-result"],
        );
    }

    #[test]
    fn events_are_a_stream() {
        let check = |text: &str| check(PortType::Events, text);
        let header = r#"{"format": "hotcell-events", "version": 1, "cell": "c", "engine": "e", "os": "linux", "arch": "x86"}"#;
        let event = r#"{"seq": 0, "time": 1, "witness": "agent", "task": {"pid": 1, "tid": 1, "parent": 0, "image": "/x"}, "what": {"new-kind": {}}}"#;
        assert_eq!(check(&format!("{header}\n{event}\n")), Ok(()));
        assert_eq!(check(header), Ok(()));
        says(check(""), &["header"]);
        says(
            check(&header.replace("\"version\": 1", "\"version\": 9")),
            &["hotcell-events 9"],
        );
        says(check(&format!("{header}\n{{}}")), &["line 2"]);
        let wide = event.replace(
            "{\"new-kind\": {}}",
            &format!("{{\"new-kind\": [{}0]}}", "0,".repeat(MAX_EVENT)),
        );
        says(
            check(&format!("{header}\n{wide}")),
            &["line 2", "more than 50000 values"],
        );
        says(
            check(&format!("{header}\n{event}\n{event}")),
            &["line 3", "/seq", "1 is expected"],
        );
    }
}
