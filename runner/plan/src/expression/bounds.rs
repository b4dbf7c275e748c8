//! What keeps an expression small: a budget of bytes that one evaluation may spend on values.
//!
//! Steps are counted by the language itself, but one step may copy a text of any length, join a list, or ask for an
//! indent of a billion. So whatever copies values pays for them first, by their weight: operators (see
//! [`compiled`](super::compiled)), filters and tests. What grows by more than its arguments weigh is worked out before
//! it is done.

use std::cell::Cell;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value, filters, tests};

use super::compiled::{PAID, TIMES};

/// Steps an expression may take.
const FUEL: u64 = 200_000;
/// Bytes of values that one evaluation may make or go through.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// What any value weighs beside its bytes.
const VALUE: u64 = 24;
/// How deep a value may be nested.
const MAX_DEPTH: usize = 256;

thread_local! {
    /// What is left for the evaluation that runs on this thread: it begins and ends here.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// An evaluation begins.
pub(super) fn begin() {
    LEFT.set(MAX_BYTES);
}

fn too_much() -> Error {
    let most = MAX_BYTES >> 20;
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the expression makes more than {most} MiB of values"),
    )
}

fn spend(bytes: u64) -> Result<(), Error> {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(bytes));
    match bytes <= left {
        true => Ok(()),
        false => Err(too_much()),
    }
}

/// What a value weighs when it is copied: what stands in it twice weighs twice. Not more than one evaluation may spend.
pub(super) fn weight(value: &Value) -> Result<u64, Error> {
    let mut total = 0;
    weigh(value, 0, &mut total)?;
    Ok(total)
}

fn weigh(value: &Value, depth: usize, total: &mut u64) -> Result<(), Error> {
    let own = match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Bytes => value.as_bytes().map_or(0, <[u8]>::len),
        _ => 0,
    };
    *total = total.saturating_add(VALUE).saturating_add(own as u64);
    if *total > MAX_BYTES || depth > MAX_DEPTH {
        return Err(too_much());
    }
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        _ => return Ok(()),
    };
    for item in value.try_iter()? {
        weigh(&item, depth + 1, total)?;
        if is_map && let Ok(inner) = value.get_item(&item) {
            weigh(&inner, depth + 1, total)?;
        }
    }
    Ok(())
}

/// Pays for a value.
pub(super) fn pay(value: &Value) -> Result<(), Error> {
    spend(weight(value)?)
}

fn paid(value: Value) -> Result<Value, Error> {
    pay(&value)?;
    Ok(value)
}

/// `a * b`: numbers, and texts and lists that are repeated.
fn times(left: Value, right: Value) -> Result<Value, Error> {
    let repeats = |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::String | ValueKind::Seq | ValueKind::Iterable
        )
    };
    let (what, count) = match (repeats(&left), repeats(&right)) {
        (true, _) => (&left, &right),
        (false, true) => (&right, &left),
        (false, false) => return product(&left, &right),
    };
    let count = count.as_usize().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidOperation,
            "texts and lists are multiplied with numbers from 0",
        )
    })?;
    spend(weight(what)?.saturating_mul(count as u64))?;
    if let Some(text) = what.as_str() {
        return Ok(Value::from(text.repeat(count)));
    }
    let items: Vec<Value> = what.try_iter()?.collect();
    Ok(Value::from(
        std::iter::repeat_n(items, count)
            .flatten()
            .collect::<Vec<Value>>(),
    ))
}

fn product(left: &Value, right: &Value) -> Result<Value, Error> {
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => Some(value.clone()),
        _ => None,
    };
    let (Some(a), Some(b)) = (number(left), number(right)) else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("{} and {} cannot be multiplied", left.kind(), right.kind()),
        ));
    };
    if let (true, true) = (a.is_integer(), b.is_integer())
        && let (Ok(a), Ok(b)) = (i128::try_from(a.clone()), i128::try_from(b.clone()))
    {
        let product = a
            .checked_mul(b)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the product is larger than 128 bits"))?;
        // Small numbers are what the rest of the language makes of them.
        return Ok(i64::try_from(product).map_or_else(|_| Value::from(product), Value::from));
    }
    match (f64::try_from(a), f64::try_from(b)) {
        (Ok(a), Ok(b)) => Ok(Value::from(a * b)),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "numbers that are too large",
        )),
    }
}

/// What a filter makes of so many bytes of its arguments.
#[derive(Clone, Copy)]
enum Growth {
    /// No more than its arguments, by a small factor.
    Linear,
    /// Each character may become a value of its own.
    Split,
    /// The other arguments stand between all values of the first.
    Between,
    /// A number says how often.
    Count,
    /// A number says how wide each line is.
    Indent,
    /// Only numbers are added up: texts would be copied once for each.
    Numbers,
}

impl Growth {
    /// What has to be paid before the work is done.
    fn cost(self, args: &[Value]) -> Result<u64, Error> {
        let mut weights = args.iter().map(weight);
        let first = weights.next().transpose()?.unwrap_or(0);
        let mut others = 0u64;
        for weight in weights {
            others = others.saturating_add(weight?);
        }
        let own = first.saturating_add(others);
        let number = || numbers(args.get(1..).unwrap_or_default());
        Ok(match self {
            Self::Linear => own,
            Self::Split => own.saturating_mul(16),
            Self::Between => {
                let places = match args.first().and_then(Value::as_str) {
                    Some(text) => places(text, args.get(1).and_then(Value::as_str)),
                    None => args.first().and_then(Value::len).unwrap_or(0),
                };
                own.saturating_add(others.saturating_mul(places as u64))
            }
            Self::Count => own.saturating_add(number().saturating_mul(VALUE.saturating_add(others))),
            Self::Indent => own.saturating_add(number().saturating_mul(first)),
            Self::Numbers => {
                let start = args
                    .get(2)
                    .is_some_and(|start| !start.is_number() && !start.is_kwargs());
                let named = args.last().filter(|value| value.is_kwargs());
                let named = named.and_then(|named| named.get_attr("start").ok());
                if start || named.is_some_and(|start| !start.is_undefined() && !start.is_number()) {
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        "only numbers are added up",
                    ));
                }
                own
            }
        })
    }
}

/// How often a text may be put in: for each time that the old one is found, or between all characters.
fn places(text: &str, old: Option<&str>) -> usize {
    match old {
        Some(old) if !old.is_empty() => text.matches(old).count(),
        _ => text.len().saturating_add(1),
    }
}

/// The greatest number among arguments, with or without a name.
fn numbers(args: &[Value]) -> u64 {
    let number = |value: &Value| value.as_usize().map_or(0, |number| number as u64);
    let each = args.iter().map(|arg| match arg.is_kwargs() {
        false => number(arg),
        true => {
            let names = arg.try_iter().into_iter().flatten();
            let named = names.filter_map(|name| arg.get_item(&name).ok());
            named.map(|value| number(&value)).max().unwrap_or(0)
        }
    });
    each.max().unwrap_or(0)
}

fn filter(environment: &mut Environment<'static>, name: &'static str, growth: Growth, original: Value) {
    environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<Value>| {
        spend(growth.cost(&args)?)?;
        paid(original.call(state, &args)?)
    });
}

fn test(environment: &mut Environment<'static>, names: &[&'static str], original: &Value) {
    for name in names {
        let original = original.clone();
        environment.add_test(*name, move |state: &mut State<'_, '_>, args: Rest<Value>| {
            spend(Growth::Linear.cost(&args)?)?;
            Ok::<bool, Error>(original.call(state, &args)?.is_true())
        });
    }
}

macro_rules! filters {
    ($environment:ident, $($growth:ident: $($name:ident)*;)*) => {
        $($(filter(
            &mut $environment,
            stringify!($name),
            Growth::$growth,
            Value::from_function(filters::$name),
        );)*)*
    };
}

/// The language as expressions have it.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.remove_global("debug");
    // Nothing can be kept in it without statements.
    environment.remove_global("namespace");
    // They write texts for people and pages, of any width.
    for name in ["format", "pprint", "safe", "escape", "e"] {
        environment.remove_filter(name);
    }
    environment.add_function(PAID, paid);
    environment.add_function(TIMES, times);
    // What is not named here copies nothing: `length`, `count`, `default`, `d`, `first`, `last`, `attr`, `bool`, `abs`,
    // `int`, `float`, `round`.
    filters! { environment,
        Linear: upper lower title capitalize trim string reverse items dictsort min max select reject selectattr
            rejectattr map groupby chain zip;
        Split: split lines list sort unique;
        Between: replace join;
        Count: batch slice;
        Indent: indent tojson;
        Numbers: sum;
    }
    filter(
        &mut environment,
        "json",
        Growth::Indent,
        Value::from_function(filters::tojson),
    );
    let is = |environment: &mut _, names: &[&'static str], original| test(environment, names, &original);
    is(
        &mut environment,
        &["eq", "equalto", "=="],
        Value::from_function(tests::is_eq),
    );
    is(
        &mut environment,
        &["ne", "!="],
        Value::from_function(tests::is_ne),
    );
    is(
        &mut environment,
        &["lt", "lessthan", "<"],
        Value::from_function(tests::is_lt),
    );
    is(
        &mut environment,
        &["le", "<="],
        Value::from_function(tests::is_le),
    );
    is(
        &mut environment,
        &["gt", "greaterthan", ">"],
        Value::from_function(tests::is_gt),
    );
    is(
        &mut environment,
        &["ge", ">="],
        Value::from_function(tests::is_ge),
    );
    is(&mut environment, &["in"], Value::from_function(tests::is_in));
    is(
        &mut environment,
        &["startingwith"],
        Value::from_function(tests::is_startingwith),
    );
    is(
        &mut environment,
        &["endingwith"],
        Value::from_function(tests::is_endingwith),
    );
    environment
}
