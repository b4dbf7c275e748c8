//! What a guest cannot be given, whatever its kernel: told where it is written, not when it runs.

use hotcell_schema::manifest::Span;

use crate::diagnostics::{Code, Diagnostic};
use crate::tree::{Node, Value};

/// Settings of `unicorn/linux` that are texts of the guest.
const TEXTS: [&str; 5] = ["path", "cwd", "argv0", "args", "env"];

/// Looks at the settings of a stage that runs a Linux program.
pub(super) fn check(with: &Node, problems: &mut Vec<Diagnostic>) {
    for key in TEXTS {
        if let Some(node) = with.get(key) {
            whole(key, node, problems);
        }
    }
    for (key, is_folder) in [("path", false), ("cwd", true)] {
        if let Some((node, path)) = with.get(key).and_then(|node| Some((node, node.as_text()?)))
            && !is_path(path, is_folder)
        {
            problems.push(no_path(&format!("`{key}`"), path, node.span));
        }
    }
    let files = with.get("files").and_then(Node::as_table);
    for (path, entry) in files.into_iter().flatten() {
        if path.contains('\0') {
            problems.push(
                Diagnostic::error(
                    Code::NotForGuest,
                    entry.key,
                    "a path in `files` holds a NUL character",
                )
                .help(NUL),
            );
        }
        if !is_path(path, false) {
            let shown: String = path.chars().take(60).collect();
            problems.push(no_path(&format!("`{shown}` in `files`"), path, entry.key));
        }
    }
}

/// Why there is no way to give it.
const NUL: &str = "programs are given texts that end at a NUL character";

/// No text of a program holds a NUL character.
pub(super) fn whole(key: &str, node: &Node, problems: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Text(text) if text.contains('\0') => {
            let title = format!("`{key}` holds a NUL character");
            problems.push(Diagnostic::error(Code::NotForGuest, node.span, title).help(NUL));
        }
        Value::List(items) => items.iter().for_each(|item| whole(key, item, problems)),
        Value::Table(table) => {
            for entry in table.values() {
                whole(key, &entry.node, problems);
            }
        }
        _ => {}
    }
}

/// Whether a text is an absolute path that leads nowhere upwards, as the kernel makes files and folders before the start.
fn is_path(path: &str, is_folder: bool) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    path.starts_with('/')
        && !path.split('/').any(|part| part == "..")
        && (is_folder || !matches!(last, "" | "."))
}

fn no_path(what: &str, path: &str, span: Span) -> Diagnostic {
    let title = format!("{what} is no absolute path of the guest");
    let diagnostic = Diagnostic::error(Code::NotForGuest, span, title);
    match path.starts_with('/') || path.is_empty() {
        true => diagnostic
            .help("a path begins with `/`, has no `..` in it, and that of a file ends with its name"),
        false => diagnostic.help(format!(
            "for instance `/tmp/{}`",
            path.chars().take(60).collect::<String>()
        )),
    }
}
