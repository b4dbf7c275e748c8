//! Diagnostics: what is wrong, where, and what to do about it. One table of codes; rendering is the caller's.

use std::fmt::Write as _;

use hotcell_schema::diagnostic as told;
use hotcell_schema::manifest::Span;
use serde::Serialize;

use crate::sources::Sources;

/// How serious a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The manifest cannot be used.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its code: a row of [`CODES`].
    pub code: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: String,
    /// Places, the first one is the main one. Empty when the file itself cannot be read.
    pub labels: Vec<Label>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is there; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: Code, span: Span, title: impl Into<String>) -> Self {
        Self {
            code: code.as_str(),
            severity: Severity::Error,
            title: visible(title.into()),
            labels: vec![Label {
                span,
                text: String::new(),
            }],
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: Code, span: Span, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, title)
        }
    }

    /// An error of a file that has no text to point at.
    pub fn without_place(code: Code, title: impl Into<String>) -> Self {
        Self {
            code: code.as_str(),
            severity: Severity::Error,
            title: visible(title.into()),
            labels: Vec::new(),
            help: None,
        }
    }

    /// Says what is at the main place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.text = text.into();
        }
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what was probably meant, if anything is near.
    #[must_use]
    pub fn did_you_mean<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// The main place.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }

    /// One line for logs and tests: `file:line:column: E0001: title`, then places and help on lines of their own.
    pub fn plain(&self, sources: &Sources) -> String {
        let place = |span: Span| {
            let position = sources.position(span);
            format!(
                "{}:{}:{}",
                sources.path(span.file),
                position.line,
                position.column
            )
        };
        let mut out = String::new();
        if let Some(first) = self.labels.first() {
            out.push_str(&place(first.span));
            out.push_str(": ");
        }
        let word = match self.severity {
            Severity::Warning => "warning ",
            Severity::Error => "",
        };
        let _ = write!(out, "{word}{}: {}", self.code, self.title);
        if let Some(first) = self.labels.first() {
            let (line, marks) = excerpt(sources, first.span);
            let _ = write!(out, "\n    | {line}\n    | {marks}");
            if !first.text.is_empty() {
                let _ = write!(out, " {}", first.text);
            }
        }
        for label in self.labels.iter().skip(1) {
            let _ = write!(out, "\n    {}: {}", place(label.span), label.text);
        }
        if let Some(help) = &self.help {
            let _ = write!(out, "\n    help: {help}");
        }
        out
    }
}

/// Titles hold names that others chose: what would move a terminal's cursor is shown as a mark.
fn visible(text: String) -> String {
    match text.contains(|c: char| c.is_control() && c != '\n') {
        false => text,
        true => text
            .chars()
            .map(|c| {
                if c.is_control() && c != '\n' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect(),
    }
}

/// Diagnostics as programs read them.
pub fn for_programs(diagnostics: &[Diagnostic], sources: &Sources) -> told::Diagnostics {
    let place = |file: u32, byte: u32| {
        let at = sources.position(Span {
            file,
            start: byte,
            end: byte,
        });
        told::Position {
            line: at.line,
            column: at.column,
            byte,
        }
    };
    let label = |label: &Label| told::Label {
        file: sources.path(label.span.file).to_string(),
        start: place(label.span.file, label.span.start),
        end: place(label.span.file, label.span.end),
        text: label.text.clone(),
    };
    told::Diagnostics {
        format: told::FORMAT.into(),
        version: told::VERSION,
        diagnostics: diagnostics
            .iter()
            .map(|diagnostic| told::Diagnostic {
                code: diagnostic.code.into(),
                severity: match diagnostic.severity {
                    Severity::Warning => told::Severity::Warning,
                    Severity::Error => told::Severity::Error,
                },
                title: diagnostic.title.clone(),
                labels: diagnostic.labels.iter().map(label).collect(),
                help: diagnostic.help.clone(),
            })
            .collect(),
    }
}

/// Greatest number of characters of a line that is shown.
const SHOWN: usize = 120;

/// The line of a place, and marks below it. Of a long line, what is around the place; what would move the cursor is shown as
/// a picture, but for tabs.
fn excerpt(sources: &Sources, span: Span) -> (String, String) {
    let position = sources.position(span);
    let line: Vec<char> = sources.line(span.file, position.line).chars().collect();
    let column = (position.column as usize).saturating_sub(1).min(line.len());
    let start = if line.len() > SHOWN {
        column.saturating_sub(SHOWN / 4)
    } else {
        0
    };
    let shown: Vec<char> = line.iter().copied().skip(start).take(SHOWN).collect();
    let end = sources.position(Span {
        start: span.end,
        ..span
    });
    let end = if end.line == position.line {
        (end.column as usize).saturating_sub(1)
    } else {
        line.len()
    };
    let mut text = String::new();
    if start > 0 {
        text.push('…');
    }
    text.extend(shown.iter().map(|c| match c {
        '\t' => '\t',
        c if c.is_control() => '\u{fffd}',
        c => *c,
    }));
    if line.len() > start + shown.len() {
        text.push('…');
    }
    let mut marks = String::new();
    if start > 0 {
        marks.push(' ');
    }
    marks.extend(
        shown
            .iter()
            .take(column - start)
            .map(|c| if *c == '\t' { '\t' } else { ' ' }),
    );
    let count = end
        .saturating_sub(column)
        .clamp(1, (shown.len() + start).saturating_sub(column).max(1));
    marks.push_str(&"^".repeat(count));
    (text.trim_end().to_owned(), marks)
}

/// The known name that is nearest to a wrong one, if any is near enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > 200 {
        return None;
    }
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    let length = wrong.chars().count();
    // Every name of one letter is near to every other.
    let alike =
        |distance: usize, name: &str| distance <= allowed && distance < length.max(name.chars().count());
    known
        .into_iter()
        .filter(|name| name.len() <= 200 && name.chars().count().abs_diff(length) <= allowed)
        .map(|name| {
            (
                strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| alike(*distance, name))
        .min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)))
        .map(|(_, name)| name)
}

macro_rules! codes {
    ($($name:ident = $text:literal: $about:literal,)*) => {
        /// Codes of diagnostics. A code keeps its meaning for good; a meaning that is gone takes its code with it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $about] $name,)*
        }

        impl Code {
            /// The code as it is shown.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// Every code and what it means.
        pub const CODES: &[(&str, &str)] = &[$(($text, $about),)*];
    };
}

codes! {
    CannotRead = "E0001": "A file of the manifest cannot be read.",
    NotText = "E0002": "A file of the manifest is not UTF-8 text.",
    TooLarge = "E0003": "A file of the manifest is larger, deeper or has more values than is allowed.",
    Syntax = "E0004": "A document is not valid TOML or YAML.",
    DuplicateKey = "E0005": "A key stands twice in the same table.",
    UnknownLanguage = "E0006": "The file's name says neither TOML nor YAML.",
    Include = "E0007": "An included document cannot be had.",
    IncludeCycle = "E0008": "Documents include each other in a circle.",
    OutsideFolder = "E0009": "A path leads out of the folder of the document that names it.",
    Override = "E0010": "A `--set` or `--variant` cannot be applied.",
    Version = "E0011": "The manifest's version is missing or not one this program reads.",
    Unwritable = "E0012": "A document cannot be written in that language.",
    MoreMistakes = "E0013": "There are more mistakes than are told.",
    UnknownKey = "E0101": "A key that does not exist here.",
    MissingKey = "E0102": "A key that must be there is missing.",
    WrongType = "E0103": "A value of the wrong type.",
    WrongValue = "E0104": "A value that is not among the allowed ones.",
    WrongForm = "E0105": "A text that does not have the needed form.",
    OutOfRange = "E0106": "A number, list or text outside of its bounds.",
    WrongName = "E0107": "A name with characters that names do not have.",
    Invalid = "E0108": "A value that fits none of the forms it may have.",
    LiteralSecret = "E0109": "A secret is written out instead of named.",
    NotForGuest = "E0110": "A path or text that no guest can be given.",
    UnknownStageType = "E0201": "A stage uses a stage type that does not exist.",
    UnknownStage = "E0202": "A reference to a stage that does not exist.",
    UnknownPort = "E0203": "A reference to an input or output that the stage type does not have.",
    PortType = "E0204": "An output is wired to an input of another type.",
    MissingInput = "E0205": "An input that must be wired is not.",
    WrongReference = "E0206": "A text that is no reference, or not one that can stand here.",
    Cycle = "E0207": "Stages wait for each other in a circle.",
    Axes = "E0208": "The axes of two stages do not fit together.",
    TooMany = "E0209": "More instances, samples or values than is allowed.",
    DuplicateValue = "E0210": "The same value stands twice on an axis.",
    Expression = "E0211": "An expression cannot be read or evaluated.",
    UnknownVariable = "E0212": "A variable that is not set.",
    VariableCycle = "E0213": "Variables use each other in a circle.",
    UnknownName = "E0214": "An expression uses a name that is not known where it stands.",
    UnknownSamples = "E0301": "A reference to a sample set or source that does not exist.",
    NoMatch = "E0302": "A pattern fits no file.",
    SampleFile = "E0303": "A sample's file cannot be read.",
    SampleDigest = "E0304": "A sample's file does not have the digest that is listed.",
    SampleList = "E0305": "A list of samples cannot be read.",
    WrongPattern = "E0306": "A pattern cannot be read.",
    SampleSet = "E0307": "A sample set says where its samples are not at all, or in two ways.",
    Archive = "E0308": "An archive is damaged, or of a kind that is not read.",
    ArchivePassword = "E0309": "An encrypted archive has no password, or another one.",
    ArchiveTooLarge = "E0310": "An archive holds more than is allowed.",
    SourceKeys = "E0311": "A source lacks a key that its kind needs, or has one that its kind does not know.",
    Package = "E0312": "A Debian package is not where it is looked for.",
    NotFetched = "E0313": "A package that is not stored yet: a run fetches it.",
    AbsentSample = "E0314": "A sample that is listed, and that its source does not have.",
    Unverified = "E0315": "Nothing vouches for a package: neither a signature nor a pinned digest.",
    SourceHost = "E0316": "This host could not read a source or fetch a package.",
    UnknownSecret = "E0320": "A secret is named that is not declared.",
    SecretPlace = "E0321": "A secret says nowhere where it is read, or in several ways.",
    SecretUnread = "E0322": "A secret cannot be read.",
    NotLive = "E0323": "A live analyser cannot begin with its guest.",
    UnknownProfile = "E0401": "No arch profile has this name.",
    BrokenProfile = "E0402": "An arch profile cannot be read.",
    UnknownPersona = "E0403": "No persona has this name, and no such file exists.",
    RuleFile = "E0501": "A rule file cannot be used.",
    Cores = "E0601": "The cores of a host do not fit together.",
    Quota = "E0602": "A quota is more than its host has, or nothing at all.",
    Users = "E0603": "Two users of a host are one.",
    UnknownPart = "E0604": "A host names an image, network, engine or kind of machine that there is not.",
    Template = "E0605": "A template is outside of what its arch profile or its image allows.",
    Network = "E0606": "The addresses of a network cannot be used.",
    StageCores = "E0607": "A stage wants cores that it cannot have.",
    NotYet = "E0901": "Something that the language has a place for, and this version does not do.",
    WrongKind = "E0902": "A document of the other kind: an experiment is needed, or a host.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(nearest("smaples", ["samples", "sources"]), Some("samples"));
        assert_eq!(
            nearest("unicorn/linx", ["unicorn/linux", "inspect/elf"]),
            Some("unicorn/linux")
        );
        assert_eq!(nearest("zebra", ["samples", "sources"]), None);
        assert_eq!(nearest("", ["in"]), None);
        assert_eq!(nearest("a", ["b"]), None);
        assert_eq!(nearest("A", ["a", "b"]), Some("a"));
        assert_eq!(nearest("a", ["ab"]), Some("ab"));
    }
}
