//! What inspection finds wrong or remarkable: one row per rule, and a collector that bounds the evidence.

use std::collections::BTreeMap;

use hotcell_schema::finding::{Evidence, Finding, Findings, Severity};

/// Greatest number of pieces of evidence kept with one finding.
const MAX_EVIDENCE: usize = 16;

/// One check of static inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Stable id.
    pub id: &'static str,
    /// A sentence for people.
    pub title: &'static str,
    /// How serious.
    pub severity: Severity,
    /// ATT&CK technique ids.
    pub attack: &'static [&'static str],
}

macro_rules! rules {
    ($($name:ident = $severity:ident $id:literal $title:literal $([$($attack:literal),*])?;)*) => {
        $(
            pub(crate) const $name: Rule = Rule {
                id: $id,
                title: $title,
                severity: Severity::$severity,
                attack: &[$($($attack),*)?],
            };
        )*
        /// Every check there is, by id.
        pub static RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    BAD_CLASS = Medium "elf/bad-class" "The ELF class is neither 32 nor 64 bits";
    BAD_ENTRY_SIZE = Medium "elf/bad-entry-size" "A header table or section has entries of a wrong size";
    BAD_HEADER_VERSION = Low "elf/bad-header-version" "An ELF version field is not 1";
    BAD_INTERPRETER = Medium "elf/bad-interpreter" "The program interpreter cannot be read";
    BAD_NAME = Low "elf/bad-name" "A name points outside its string table";
    BAD_NAME_TABLE = Medium "elf/bad-name-table" "The table of section names is not where the header says";
    BAD_SECTION_LINK = Low "elf/bad-section-link" "A section refers to a section that does not exist";
    BAD_DYNAMIC = Medium "elf/bad-dynamic-section" "The dynamic section is cut off or points nowhere";
    BAD_NOTE = Low "elf/bad-note" "A note is cut off";
    DUPLICATE_SECTION = Info "elf/duplicate-section-name" "Two sections have the same name";
    DUPLICATE_SEGMENT = Medium "elf/duplicate-segment" "A segment that may stand once stands twice";
    DUPLICATE_SYMBOL_TABLE = Low "elf/duplicate-symbol-table" "There is more than one symbol table of a kind";
    EMPTY_SEGMENT = Low "elf/empty-segment" "A loaded segment is empty";
    ENTRY_NOT_IN_FILE = Medium "elf/entry-not-in-file" "The entry is in memory that the file does not fill";
    ENTRY_OUTSIDE_CODE = High "elf/entry-outside-code" "The entry is not in an executable segment";
    EXECUTABLE_STACK = Medium "elf/executable-stack" "The stack is executable";
    HUGE_SEGMENT = Medium "elf/huge-segment" "A segment asks for more than 1 GiB of memory";
    LYING_COUNT = Medium "elf/lying-count" "The header counts more entries than the file can hold";
    LYING_IDENT = High "elf/lying-ident" "Class or byte order in the identification contradict the header"
        ["T1027"];
    LYING_SECTION_HEADER = High "elf/lying-section-header" "A section says otherwise than the segments what is at its address"
        ["T1027"];
    MISALIGNED_SEGMENT = Low "elf/misaligned-segment" "Address and file offset of a segment do not fit its alignment";
    NO_LOADED_SEGMENT = Medium "elf/no-loaded-segment" "A program without a segment to load";
    NO_SECTION_HEADERS = Low "elf/no-section-headers" "A program without section headers" ["T1027.008"];
    OVERLAPPING_SECTIONS = Medium "elf/overlapping-sections" "Sections share bytes of the file";
    OVERLAPPING_SEGMENTS = Medium "elf/overlapping-segments" "Loaded segments share memory";
    SECTION_OUTSIDE_SEGMENTS = Low "elf/section-outside-segments" "A loaded section is in no loaded segment";
    SECTION_OVER_HEADER = Medium "elf/section-over-header" "A section covers the ELF header";
    SECTION_PAST_END = Medium "elf/section-past-end" "A section goes past the end of the file";
    SECTION_TABLE_PAST_END = Medium "elf/section-table-past-end" "The section table goes past the end of the file";
    SEGMENT_ORDER = Low "elf/segment-order" "Loaded segments are not in the order of their addresses";
    SEGMENT_PAST_END = Medium "elf/segment-past-end" "A segment goes past the end of the file";
    SEGMENT_SIZES = Medium "elf/segment-sizes" "A segment has more bytes in the file than in memory";
    SEGMENT_TABLE_PAST_END = Medium "elf/segment-table-past-end" "The segment table goes past the end of the file";
    SEGMENT_WRAPS = High "elf/segment-wraps" "A segment goes past the end of the address space";
    TOO_MANY = Low "elf/too-many" "There is more of something than is looked at";
    TRAILING_DATA = Info "elf/trailing-data" "Bytes follow that no header speaks of";
    TRUNCATED_HEADER = Medium "elf/truncated-header" "The ELF header is cut off";
    UNKNOWN_MACHINE = Low "elf/unknown-machine" "The machine is not registered";
    UNTERMINATED_STRINGS = Low "elf/unterminated-string-table" "A string table does not end with a NUL";
    WRITABLE_CODE = Medium "elf/writable-executable-segment" "A segment is writable and executable";
    PE_BAD_HEADER = Medium "pe/bad-header" "A PE header is cut off or contradicts itself";
    PE_BAD_IMPORTS = Medium "pe/bad-imports" "The import table is cut off or points nowhere";
    PE_ENTRY_OUTSIDE_CODE = High "pe/entry-outside-code" "The entry is not in an executable section";
    PE_SECTION_PAST_END = Medium "pe/section-past-end" "A section goes past the end of the file";
    PE_WRITABLE_CODE = Medium "pe/writable-executable-section" "A section is writable and executable";
    MACHO_BAD_HEADER = Medium "mach-o/bad-header" "A Mach-O header is cut off or contradicts itself";
    MACHO_BAD_COMMAND = Medium "mach-o/bad-load-command" "A load command is cut off or contradicts itself";
    MACHO_SEGMENT_PAST_END = Medium "mach-o/segment-past-end" "A segment goes past the end of the file";
    MACHO_SLICE_PAST_END = Medium "mach-o/slice-past-end" "A program of a universal file goes past its end";
    MACHO_WRITABLE_CODE = Medium "mach-o/writable-executable-segment" "A segment is writable and executable";
    PACKED = Medium "packer/packed" "The program is packed" ["T1027.002"];
    PARSER_PANIC = High "inspect/parser-panic" "A reader gave up on the file; please report it";
}

/// Gathers findings, one per rule, with bounded evidence.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    by_rule: BTreeMap<&'static str, (Rule, Vec<Evidence>, u64)>,
}

impl Collector {
    /// A piece of evidence for a rule.
    pub(crate) fn add(&mut self, rule: Rule, offset: Option<u64>, text: impl Into<String>) {
        let (_, evidence, more) = self
            .by_rule
            .entry(rule.id)
            .or_insert_with(|| (rule, Vec::new(), 0));
        if evidence.len() < MAX_EVIDENCE {
            evidence.push(Evidence {
                event: None,
                offset,
                text: text.into(),
            });
        } else {
            *more += 1;
        }
    }

    /// The findings in their fixed order.
    pub(crate) fn finish(self) -> Vec<Finding> {
        let findings = self
            .by_rule
            .into_values()
            .map(|(rule, mut evidence, more)| {
                if more > 0 {
                    evidence.push(Evidence {
                        event: None,
                        offset: None,
                        text: format!("and {more} more"),
                    });
                }
                Finding {
                    rule: rule.id.into(),
                    title: rule.title.into(),
                    severity: rule.severity,
                    attack: rule.attack.iter().map(|&id| id.into()).collect(),
                    evidence,
                }
            })
            .collect();
        Findings::new(findings).findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_evidence_is_bounded() {
        let ids: std::collections::BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        let mut collector = Collector::default();
        for place in 0..100 {
            collector.add(BAD_NAME, Some(place), "x");
        }
        let findings = collector.finish();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].evidence.len(), MAX_EVIDENCE + 1);
        assert_eq!(findings[0].evidence[MAX_EVIDENCE].text, "and 84 more");
    }
}
