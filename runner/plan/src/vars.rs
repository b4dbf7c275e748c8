//! Variables: `${vars.x}` in every text of a document, filled in after includes, variants and `--set`, before the schema
//! looks at it. So a setting that must be a number can be `"${vars.n}"`.
//!
//! A text that is one `${vars.x}` alone becomes the variable's value, whatever its type. Other `${}` stay for those who know
//! their names (samples, axes). `when` and `where` are expressions already and may say `vars.x` without `${}`. Variables may
//! use each other. What they add is bounded.
//!
//! | module | what it does |
//! |---|---|
//! | [`written`] | how variables are named in expressions, and texts written so that they are read as they are |

mod written;

use std::collections::{BTreeSet, HashMap};

use hotcell_schema::manifest::Span;
use serde_json::{Map, Value as Json, json};

use crate::diagnostics::{Code, Diagnostic};
use crate::expression::{self, Evaluator, Piece};
use crate::near::Near;
use crate::sources::Sources;
use crate::tree::origins::Origins;
use crate::tree::{MAX_ADDED, MAX_DEPTH, Node, Value};
pub(crate) use written::reads;
use written::{escape, is_bare};

/// Tables at the top that are written out: variables stand within them.
const SECTIONS: [&str; 8] = [
    "sources",
    "samples",
    "stages",
    "secrets",
    "templates",
    "images",
    "networks",
    "users",
];
/// Greatest number of bytes that variables may add.
const MAX_BYTES: usize = 16 << 20;
/// Greatest length of a chain of variables that use each other.
const MAX_CHAIN: usize = 32;

/// Fills in the variables of a document.
///
/// The places of texts that could not be filled in come back: what else is wrong with them follows from that.
pub(crate) fn fill(
    root: &mut Node,
    sources: &Sources,
    origins: &mut Origins,
    problems: &mut Vec<Diagnostic>,
) -> BTreeSet<Span> {
    let Value::Table(table) = &mut root.value else {
        return BTreeSet::new();
    };
    let mut vars = Vars {
        evaluator: None,
        known: HashMap::new(),
        order: Vec::new(),
        near: Near::default(),
        chain: Vec::new(),
        open: BTreeSet::new(),
        failures: 0,
        bytes: 0,
        values: 0,
        sources,
        origins,
        problems,
    };
    if let Some(Value::Table(written)) = table.get("vars").map(|entry| &entry.node.value) {
        for (name, entry) in written {
            vars.order.push(name.clone());
            vars.known.insert(
                name.clone(),
                Variable {
                    key: entry.key,
                    state: State::Written(entry.node.clone()),
                },
            );
        }
    }
    for name in vars.order.clone() {
        vars.resolve(&name);
    }
    for (key, entry) in table.iter_mut() {
        match key.as_str() {
            // Includes and variants were applied before there were variables.
            "include" | "variants" => {}
            // Whoever looks at a document sees by itself what it is, and which parts it has.
            "kind" => {}
            section if SECTIONS.contains(&section) && matches!(entry.node.value, Value::Text(_)) => {}
            "vars" => vars.put_back(&mut entry.node),
            "stages" => conditions(&mut entry.node, "when", &mut vars),
            "expect" => conditions(&mut entry.node, "where", &mut vars),
            _ => vars.node(&mut entry.node),
        }
    }
    vars.open
}

/// Stages and expectations: the key of that name is an expression.
fn conditions(section: &mut Node, name: &str, vars: &mut Vars<'_>) {
    let each = |node: &mut Node, vars: &mut Vars<'_>| {
        vars.node(node);
        if let Value::Table(table) = &mut node.value
            && let Some(entry) = table.get_mut(name)
        {
            vars.condition(&mut entry.node);
        }
    };
    match &mut section.value {
        Value::Table(table) => table.values_mut().for_each(|entry| each(&mut entry.node, vars)),
        Value::List(items) => items.iter_mut().for_each(|item| each(item, vars)),
        _ => vars.node(section),
    }
}

struct Variable {
    key: Span,
    state: State,
}

enum State {
    /// As it is written.
    Written(Node),
    /// Being filled in.
    Open,
    /// Ready.
    Ready(Node),
    /// It has a mistake, which was told.
    Broken,
}

struct Vars<'a> {
    /// Made when a first expression needs one.
    evaluator: Option<Evaluator>,
    known: HashMap<String, Variable>,
    order: Vec<String>,
    near: Near,
    /// Variables that are being filled in, for circles.
    chain: Vec<String>,
    /// Texts that could not be filled in.
    open: BTreeSet<Span>,
    /// How many texts could not be filled in.
    failures: usize,
    bytes: usize,
    values: usize,
    sources: &'a Sources,
    origins: &'a mut Origins,
    problems: &'a mut Vec<Diagnostic>,
}

/// The text cannot be filled in; the reason was told.
struct Told;

impl Vars<'_> {
    fn resolve(&mut self, name: &str) {
        let Some(variable) = self.known.get_mut(name) else {
            return;
        };
        let mut node = match std::mem::replace(&mut variable.state, State::Open) {
            State::Written(node) => node,
            other => {
                variable.state = other;
                return;
            }
        };
        self.chain.push(name.to_owned());
        let before = self.failures;
        self.node(&mut node);
        self.chain.pop();
        // What a broken variable is used in is broken too, without a word of its own.
        let state = if self.failures == before {
            State::Ready(node)
        } else {
            State::Broken
        };
        if let Some(variable) = self.known.get_mut(name) {
            variable.state = state;
        }
    }

    /// The table `vars` itself, as it became.
    fn put_back(&self, node: &mut Node) {
        if let Value::Table(table) = &mut node.value {
            for (name, entry) in table {
                if let Some(State::Ready(ready)) = self.known.get(name).map(|variable| &variable.state) {
                    entry.node = ready.clone();
                }
            }
        }
    }

    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Text(text) if text.contains("vars") && text.contains("${") => {
                match self.text(&text.clone(), node.span) {
                    Ok(Some(value)) => node.value = value,
                    Ok(None) => {}
                    Err(Told) => self.unfilled(node.span),
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.node(item)),
            Value::Table(table) => {
                for entry in table.values_mut() {
                    let was_text = matches!(entry.node.value, Value::Text(_));
                    self.node(&mut entry.node);
                    if was_text && matches!(entry.node.value, Value::Table(_)) {
                        // Mistakes in tables point at their keys.
                        self.origins.also(entry.key, entry.node.span);
                    }
                }
            }
            _ => {}
        }
    }

    /// An expression that may name variables without `${}`.
    fn condition(&mut self, node: &mut Node) {
        if let Value::Text(text) = &node.value
            && text.contains("vars.")
        {
            match self.literals(&text.clone(), node.span) {
                Ok(text) => node.value = Value::Text(text),
                Err(Told) => self.unfilled(node.span),
            }
        }
    }

    fn unfilled(&mut self, span: Span) {
        self.failures += 1;
        self.open.insert(span);
    }

    /// What becomes of a text; nothing when it names no variable.
    fn text(&mut self, text: &str, span: Span) -> Result<Option<Value>, Told> {
        // What cannot be taken apart is told by those who fill in the rest.
        let pieces = match expression::pieces(text) {
            Ok(pieces) => pieces,
            Err(_) if !text.contains("${vars.") => return Ok(None),
            Err(error) => {
                self.problems.push(
                    Diagnostic::error(Code::Expression, self.within(span, "${"), error.to_string())
                        .help("write `$${` for the characters `${`"),
                );
                return Err(Told);
            }
        };
        let names = |piece: &Piece| match piece {
            Piece::Expression(inner) => reads(inner).next().is_some(),
            Piece::Text(_) => false,
        };
        let bare = pieces.iter().find_map(|piece| match piece {
            Piece::Expression(inner) if is_bare(inner) => Some(inner.trim()),
            _ => None,
        });
        if let Some(bare) = bare {
            let title = format!("`{bare}` names no variable");
            let place = self.within(span, bare);
            self.problems.push(
                Diagnostic::error(Code::UnknownVariable, place, title)
                    .help("write `vars.<name>`, in one word: `${vars.x}`"),
            );
            return Err(Told);
        }
        if !pieces.iter().any(names) {
            return Ok(None);
        }
        if let [Piece::Expression(only)] = pieces.as_slice() {
            return self.lone(only, span).map(Some);
        }
        let mut out = String::with_capacity(text.len());
        for piece in &pieces {
            match piece {
                // `$${` was taken apart, and is for others to read.
                Piece::Text(text) => escape(text, &mut out),
                Piece::Expression(inner) => match self.lone(inner, span)? {
                    Value::Text(text) => {
                        // A sign before it would be taken for a part of what comes.
                        if text.trim_start_matches('$').starts_with('{') {
                            let signs = out.len() - out.trim_end_matches('$').len();
                            out.extend(std::iter::repeat_n('$', signs));
                        }
                        out.push_str(&text);
                    }
                    Value::Integer(number) => out.push_str(&number.to_string()),
                    Value::Float(number) => out.push_str(&Json::from(number).to_string()),
                    Value::Boolean(value) => out.push_str(&value.to_string()),
                    other => {
                        self.problems.push(
                            Diagnostic::error(
                                Code::Expression,
                                self.within(span, inner.trim()),
                                format!(
                                    "`{}` is {}, and stands among other text",
                                    inner.trim(),
                                    other.kind()
                                ),
                            )
                            .help("let it be the whole text, or name one of its values: `${vars.x.key}`"),
                        );
                        return Err(Told);
                    }
                },
            }
        }
        self.added(out.len(), 0, span)?;
        Ok(Some(Value::Text(out)))
    }

    /// The value of one expression; an expression that needs more than variables stays one, with the variables' values in it.
    fn lone(&mut self, inner: &str, span: Span) -> Result<Value, Told> {
        let Some((first, _)) = reads(inner).next() else {
            return Ok(Value::Text(format!("${{{inner}}}")));
        };
        if let Some(name) = inner.trim().strip_prefix("vars.")
            && name == first
        {
            let (value, key) = self.value(name, span)?;
            let (bytes, values) = size(&value, 0);
            self.added(bytes, values, span)?;
            self.origins.filled(span, key, name);
            return Ok(placed(value, span).value);
        }
        let mut context = Map::new();
        for (name, _) in reads(inner) {
            let (value, key) = self.value(name, span)?;
            context.insert(name.to_owned(), value.to_json());
            self.origins.filled(span, key, name);
        }
        let evaluator = self.evaluator.get_or_insert_with(Evaluator::default);
        let names = match evaluator.names(inner) {
            Ok(names) => names,
            Err(error) => {
                self.problems.push(Diagnostic::error(
                    Code::Expression,
                    self.within(span, inner.trim()),
                    format!("the expression cannot be read: {error}"),
                ));
                return Err(Told);
            }
        };
        if names.iter().any(|name| name != "vars") {
            return self
                .literals(inner, span)
                .map(|inner| Value::Text(format!("${{{inner}}}")));
        }
        match evaluator.value(inner, &json!({ "vars": context })) {
            Ok(value) => {
                let node = Node::from_json(&value, span);
                let (bytes, values) = size(&node, 0);
                self.added(bytes, values, span)?;
                Ok(node.value)
            }
            Err(error) => {
                self.problems.push(Diagnostic::error(
                    Code::Expression,
                    self.within(span, inner.trim()),
                    format!("this cannot be filled in: {error}"),
                ));
                Err(Told)
            }
        }
    }

    /// An expression with each variable's value written out in it.
    fn literals(&mut self, text: &str, span: Span) -> Result<String, Told> {
        let mut out = String::with_capacity(text.len());
        let mut rest = 0;
        let found: Vec<(String, std::ops::Range<usize>)> =
            reads(text).map(|(name, at)| (name.to_owned(), at)).collect();
        for (name, at) in found {
            let (value, key) = self.value(&name, span)?;
            self.origins.filled(span, key, &name);
            out.push_str(text.get(rest..at.start).unwrap_or_default());
            out.push('(');
            literal(&value, &mut out);
            out.push(')');
            rest = at.end;
        }
        out.push_str(text.get(rest..).unwrap_or_default());
        self.added(out.len(), 0, span)?;
        Ok(out)
    }

    /// The value of a variable, and where it is set.
    fn value(&mut self, name: &str, span: Span) -> Result<(Node, Span), Told> {
        if self.bytes > MAX_BYTES || self.values > MAX_ADDED {
            return Err(Told);
        }
        if self.chain.len() > MAX_CHAIN {
            self.problems.push(Diagnostic::error(
                Code::TooLarge,
                span,
                format!("variables use each other in a chain of more than {MAX_CHAIN}"),
            ));
            return Err(Told);
        }
        self.resolve(name);
        match self.known.get(name) {
            Some(Variable {
                key,
                state: State::Ready(node),
            }) => return Ok((node.clone(), *key)),
            Some(Variable {
                key,
                state: State::Open,
                ..
            }) => {
                let start = self.chain.iter().position(|open| open == name).unwrap_or(0);
                let mut names: Vec<&str> = self.chain.iter().skip(start).map(String::as_str).collect();
                names.push(name);
                let title = format!("variables use each other in a circle: {}", names.join(" -> "));
                let problem = Diagnostic::error(
                    Code::VariableCycle,
                    self.within(span, &format!("vars.{name}")),
                    title,
                )
                .also(*key, format!("`{name}` is set here"))
                .help("give one of them a value of its own");
                self.problems.push(problem);
            }
            // Told where it is set.
            Some(_) => {}
            None => {
                let place = self.within(span, &format!("vars.{name}"));
                let title = format!("there is no variable `{name}`");
                let problem = Diagnostic::error(Code::UnknownVariable, place, title);
                let problem = self
                    .near
                    .hint(problem, name, self.order.iter().map(String::as_str));
                self.problems.push(match problem.help {
                    Some(_) => problem,
                    None if self.order.is_empty() => problem.help(format!(
                        "set it: a table `vars` with `{name}`, or `--set vars.{name}=…`"
                    )),
                    None => problem.help(format!("variables: {}", self.order.join(", "))),
                });
            }
        }
        Err(Told)
    }

    fn added(&mut self, bytes: usize, values: usize, span: Span) -> Result<(), Told> {
        let was = self.bytes > MAX_BYTES || self.values > MAX_ADDED;
        self.bytes = self.bytes.saturating_add(bytes);
        self.values = self.values.saturating_add(values);
        if self.bytes <= MAX_BYTES && self.values <= MAX_ADDED {
            return Ok(());
        }
        if !was {
            self.problems.push(
                Diagnostic::error(
                    Code::TooLarge,
                    span,
                    format!("variables add more than {} MiB to the document", MAX_BYTES >> 20),
                )
                .help("a variable counts as often as it is used"),
            );
        }
        Err(Told)
    }

    /// Where a piece of a text stands, if it stands there as it is.
    fn within(&self, span: Span, piece: &str) -> Span {
        self.sources.within(span, piece)
    }
}

/// Bytes and values of a value; more than is allowed when it is too deep.
fn size(node: &Node, depth: usize) -> (usize, usize) {
    if depth > MAX_DEPTH {
        return (usize::MAX, usize::MAX);
    }
    let sum = |parts: &mut dyn Iterator<Item = (usize, usize)>| {
        parts.fold((1, 1), |all: (usize, usize), part| {
            (all.0.saturating_add(part.0), all.1.saturating_add(part.1))
        })
    };
    match &node.value {
        Value::Text(text) => (text.len(), 1),
        Value::List(items) => sum(&mut items.iter().map(|item| size(item, depth + 1))),
        Value::Table(table) => sum(&mut table.iter().map(|(key, entry)| {
            let (bytes, values) = size(&entry.node, depth + 1);
            (bytes.saturating_add(key.len()), values)
        })),
        _ => (1, 1),
    }
}

/// The value with everything at one place: what uses it is what a mistake points at.
fn placed(mut node: Node, span: Span) -> Node {
    node.span = span;
    node.value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(|item| placed(item, span)).collect()),
        Value::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, mut entry)| {
                    entry.key = span;
                    entry.node = placed(entry.node, span);
                    (key, entry)
                })
                .collect(),
        ),
        other => other,
    };
    node
}

/// A value as the expression language writes it.
fn literal(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("none"),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                literal(item, out);
            }
            out.push(']');
        }
        Value::Table(table) => {
            out.push('{');
            for (index, (key, entry)) in table.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push_str(": ");
                literal(&entry.node, out);
            }
            out.push('}');
        }
        _ => out.push_str(&node.to_json().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Json, Vec<String>> {
        let mut sources = Sources::default();
        let file = sources.add("m.toml", text.into());
        let mut problems = Vec::new();
        let mut root =
            crate::tree::toml::parse(file, text, &mut problems).unwrap_or_else(|| panic!("{problems:?}"));
        fill(&mut root, &sources, &mut Origins::default(), &mut problems);
        if problems.is_empty() {
            Ok(root.to_json())
        } else {
            Err(problems.iter().map(|problem| problem.plain(&sources)).collect())
        }
    }

    #[test]
    fn texts_are_filled_and_keep_types() {
        let json = filled(
            "vars = { n = 3, dir = 'a', path = '${vars.dir}/b', list = [1, '${vars.n}'], open = '${sample.name}', t = { k = true } }\n\
             x = '${vars.n}'\ny = 'p-${vars.path}-${sample.name}-$${z}-${vars.n + 1}'\nz = '${vars.list}'\n\
             k = '${vars.t.k}'\no = '${vars.open}'\nm = '${vars.dir ~ sample.name}'\ns = \"${'vars.n'}\"\n\
             [stages.a]\nwhen = \"n == vars.n and '${vars.dir}' == 'vars.n'\"\n[variants.v]\nx = '${vars.no}'\n",
        );
        let json = json.unwrap_or_else(|told| panic!("{told:?}"));
        assert_eq!(json["vars"]["path"], "a/b");
        assert_eq!(json["x"], 3);
        assert_eq!(json["y"], "p-a/b-${sample.name}-$${z}-4");
        assert_eq!(json["z"], json!([1, 3]));
        assert_eq!(json["k"], true);
        assert_eq!(json["o"], "${sample.name}");
        assert_eq!(json["m"], "${(\"a\") ~ sample.name}");
        assert_eq!(json["s"], "${'vars.n'}");
        assert_eq!(json["stages"]["a"]["when"], "n == (3) and 'a' == 'vars.n'");
        assert_eq!(json["variants"]["v"]["x"], "${vars.no}");
    }

    /// What is filled in twice, variables first and the rest later, says the same as what is filled in at once.
    #[test]
    fn signs_before_values_stay() {
        let json = filled(
            "vars = { n = 3, open = '{a}', late = '${sample.name}' }\na = '$$${vars.n}'\nb = '$${vars.n}'\nc = '$$$${vars.n}'\n\
             d = '$$${vars.open}'\ne = '$$${sample.name}-${vars.n}'\nf = '$$${vars.late}'\n",
        );
        let json = json.unwrap_or_else(|told| panic!("{told:?}"));
        let context = json!({"sample": {"name": "x"}});
        for (key, wanted) in [
            ("a", "$3"),
            ("b", "${vars.n}"),
            ("c", "$${vars.n}"),
            ("d", "${a}"),
            ("e", "$x-3"),
            ("f", "$x"),
        ] {
            let text = json[key].as_str().unwrap_or_default();
            let pieces = expression::pieces(text).unwrap_or_else(|error| panic!("{error}"));
            let whole = Evaluator::default().fill(&pieces, &context);
            assert_eq!(whole, Ok(json!(wanted)), "{key}: {text}");
        }
    }

    #[test]
    fn mistakes_are_told_once_each() {
        let told = |text: &str| filled(text).err().unwrap_or_default().join("\n");
        let circle = told("vars = { a = '${vars.b}', b = '${vars.c}', c = '${vars.a}' }\nx = '${vars.a}'\n");
        assert_eq!(circle.matches("E0213").count(), 1, "{circle}");
        assert!(circle.contains("a -> b -> c -> a"), "{circle}");
        // Whatever uses a variable of the circle, wherever it is written, is not told for itself.
        for order in [
            "a = '${vars.b}', b = '${vars.a}', c = 'x${vars.a}'",
            "c = 'x${vars.a}', b = '${vars.a}', a = '${vars.b}'",
        ] {
            let text = format!("vars = {{ {order} }}\nx = '${{vars.c}}'\n[stages.s]\nwhen = 'vars.c == 1'\n");
            let all = told(&text);
            assert_eq!(all.matches(": E0").count(), 1, "{all}");
        }
        let unknown = told("vars = { count = 1 }\nx = 'n${vars.coutn}'\n");
        assert!(
            unknown.contains("E0212") && unknown.contains("did you mean `count`?"),
            "{unknown}"
        );
        assert!(unknown.contains("m.toml:2:9"), "{unknown}");
        assert!(told("vars = { l = [1] }\nx = 'n${vars.l}'\n").contains("E0211"));
        for bare in ["vars[\"l\"]", " vars . l ", "vars", "vars|length", "1 + vars"] {
            let told = told(&format!("vars = {{ l = 1 }}\nx = '${{{bare}}}'\n"));
            assert!(
                told.contains("E0212") && told.contains("write `vars.<name>`"),
                "{bare}: {told}"
            );
        }
        assert_eq!(
            told("vars = { l = 1 }\nx = '${sample.vars ~ \"vars\" ~ myvars ~ vars_x}'\n"),
            ""
        );
    }

    #[test]
    fn what_variables_add_is_bounded() {
        for item in [
            "'${vars.aLAST}${vars.aLAST}'",
            "['${vars.aLAST}', '${vars.aLAST}']",
        ] {
            let mut text = String::from("[vars]\na0 = 'xxxxxxxxxxxxxxxx'\n");
            for level in 1..31 {
                let item = item.replace("aLAST", &format!("a{}", level - 1));
                text.push_str(&format!("a{level} = {item}\n"));
            }
            let told = filled(&text).err().unwrap_or_default();
            assert!(
                told.iter().all(|line| line.contains("E0003")) && told.len() == 1,
                "{told:?}"
            );
        }
        let mut long = String::from("[vars]\na0 = 'x'\n");
        for level in 1..2000 {
            long.insert_str(7, &format!("a{level} = ['${{vars.a{}}}']\n", level - 1));
        }
        let told = filled(&long).err().unwrap_or_default();
        assert!(
            !told.is_empty() && told.iter().all(|line| line.contains("E0003")),
            "{told:?}"
        );
    }
}
