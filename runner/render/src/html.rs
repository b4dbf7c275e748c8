//! HTML pages that need nothing from outside.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use hotcell_schema::digest::Digest;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;

use crate::visible::{is_hidden, visible, visible_block};

/// A template could not be rendered: its context lacks a name, or it holds a mistake.
#[derive(Debug, thiserror::Error)]
#[error("template `{template}` failed")]
pub struct RenderError {
    /// The template.
    pub template: String,
    /// Why.
    #[source]
    pub source: Error,
}

const STYLE: &str = concat!(
    include_str!("../templates/base.css"),
    include_str!("../templates/parts.css"),
    include_str!("../templates/diff.css"),
    include_str!("../templates/cores.css")
);
const SCRIPTS: [(&str, &str); 2] = [
    (
        "report.html",
        concat!(
            "'use strict';\n",
            include_str!("../templates/common.js"),
            include_str!("../templates/report.js")
        ),
    ),
    (
        "subject.html",
        concat!(
            "'use strict';\n",
            include_str!("../templates/common.js"),
            include_str!("../templates/subject.js")
        ),
    ),
];

static ENVIRONMENT: LazyLock<Result<Environment<'static>, Error>> = LazyLock::new(environment);

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out, state, value| {
        if value.is_undefined() {
            return Err(Error::new(
                ErrorKind::UndefinedError,
                "an undefined value was printed",
            ));
        }
        match value.as_str() {
            Some(text) if !value.is_safe() => Ok(out.write_str(&escape(&visible(text)))?),
            _ => minijinja::escape_formatter(out, state, value),
        }
    });
    // Several lines of foreign text: line feeds and tabs stay.
    environment.add_filter("block", |text: &str| {
        Value::from_safe_string(escape(&visible_block(text)))
    });
    environment.add_template("base.html", include_str!("../templates/base.html"))?;
    environment.add_template("parts.html", include_str!("../templates/parts.html"))?;
    environment.add_template("report.html", include_str!("../templates/report.html"))?;
    environment.add_template("subject.html", include_str!("../templates/subject.html"))?;
    environment.add_template("diff.html", include_str!("../templates/diff.html"))?;
    environment.add_template("cores.html", include_str!("../templates/cores.html"))?;
    environment.add_template("inspection.html", include_str!("../templates/inspection.html"))?;
    Ok(environment)
}

/// Renders a page (`report.html`, `subject.html` or `diff.html`). The context is `page`; `data` is what the page's script reads.
///
/// CSS and script stand inside the page, and its content security policy admits exactly these two by their digests: no
/// other script runs and nothing is loaded, whatever a sample has smuggled into the text.
pub fn html(template: &str, page: &impl Serialize, data: &impl Serialize) -> Result<String, RenderError> {
    let error = |source| RenderError {
        template: template.to_owned(),
        source,
    };
    let environment = ENVIRONMENT
        .as_ref()
        .map_err(|source| error(Error::new(ErrorKind::InvalidOperation, source.to_string())))?;
    let script = SCRIPTS
        .iter()
        .find(|(name, _)| *name == template)
        .map_or("", |(_, script)| script);
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        source_digest(STYLE),
        source_digest(script)
    );
    let data = script_json(data)
        .map_err(|source| error(Error::new(ErrorKind::BadSerialization, source.to_string())))?;
    environment
        .get_template(template)
        .and_then(|parsed| {
            parsed.render(context! {
                page => Value::from(Serde(page)),
                policy => Value::from_safe_string(policy),
                style => Value::from_safe_string(STYLE.to_owned()),
                script => Value::from_safe_string(script.to_owned()),
                data => Value::from_safe_string(data),
            })
        })
        .map_err(error)
}

/// A script's or style's source expression in a content security policy.
fn source_digest(text: &str) -> String {
    let digest = Digest::of(text.as_bytes());
    format!(
        "sha256-{}",
        base64::engine::general_purpose::STANDARD.encode(digest.as_bytes())
    )
}

/// JSON for a script block. Characters that could end the block, or that do something unseen in a viewer of the source, are
/// written as `\uXXXX`.
pub fn script_json(data: &impl Serialize) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(data)?;
    let special = |c: char| matches!(c, '<' | '>' | '&' | '\'') || is_hidden(c);
    if !json.chars().any(special) {
        return Ok(json);
    }
    let mut out = String::with_capacity(json.len() + 64);
    let mut units = [0; 2];
    for c in json.chars() {
        if special(c) {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_its_script_block() {
        let json = script_json(&["</script><!--", "\u{202e}\u{2028}&'", "\u{e0041}"]).expect("plain data");
        assert!(!json.contains(['<', '>', '&', '\'', '\u{202e}', '\u{2028}']));
        let back: Vec<String> = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(back, ["</script><!--", "\u{202e}\u{2028}&'", "\u{e0041}"]);
    }

    #[test]
    fn an_undefined_name_is_an_error() {
        let error = html("report.html", &context! {}, &()).expect_err("no context");
        assert_eq!(error.source.kind(), ErrorKind::UndefinedError);
    }

    #[test]
    fn policy_digests_are_those_a_browser_computes() {
        // The digest of the empty text, as in RFC 6234 and the CSP specification's encoding.
        assert_eq!(
            source_digest(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }
}
