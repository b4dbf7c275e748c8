//! An expression as it is evaluated: read by the language's own parser, its names known, and each operator that copies
//! values told to pay for them first.
//!
//! The language computes constants while it compiles, and its operators know no bound but 100 MB each. So the parsed form
//! is rewritten before it is compiled: see [`bounds`](super::bounds) for what the functions do.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::machinery::ast::{
    self, BinOpKind, Call, CallArg, Compare, CompareOp, Expr, Spanned, UnaryOpKind,
};
use minijinja::machinery::{CodeGenerator, Instructions, Span, eval, make_string_output, parse_expr};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

/// Function that pays for a value and gives it back. No one can write this name.
pub(super) const PAID: &str = "*paid";
/// Function that multiplies.
pub(super) const TIMES: &str = "*times";
/// How deep an expression may be nested; every operator of a chain counts.
const MAX_DEPTH: usize = 256;

/// A compiled expression.
pub(super) struct Compiled<'text> {
    instructions: Instructions<'text>,
    /// The names that it takes from its context.
    pub names: BTreeSet<String>,
    /// The same with what is asked of each.
    pub paths: BTreeSet<String>,
}

impl<'text> Compiled<'text> {
    pub(super) fn of(text: &'text str) -> Result<Self, Error> {
        let parsed = parse_expr(text)?;
        let mut walk = Walk::default();
        let paid = walk.expr(&parsed, 0)?;
        let mut generator = CodeGenerator::new("<expression>", text);
        generator.compile_expr(&paid);
        Ok(Self {
            instructions: generator.finish().0,
            names: walk.names,
            paths: walk.paths,
        })
    }

    pub(super) fn value<'env>(
        &'env self,
        environment: &'env Environment<'env>,
        root: Value,
    ) -> Result<Value, Error>
    where
        'text: 'env,
    {
        let mut nothing = String::new();
        let blocks = BTreeMap::new();
        let (value, _) = eval(
            environment,
            &self.instructions,
            root,
            &blocks,
            &mut make_string_output(&mut nothing),
            AutoEscape::None,
        )?;
        value.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the expression has no value"))
    }
}

fn call<'a>(function: &'static str, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let expr = Expr::Var(Spanned::new(ast::Var { id: function }, span));
    let args = args.into_iter().map(CallArg::Pos).collect();
    Expr::Call(Spanned::new(Call { expr, args }, span))
}

/// Numbers cost nothing, and most conditions compare with a short text.
fn is_small(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Const(constant) => constant.value.as_str().is_none_or(|text| text.len() <= 64),
        _ => false,
    }
}

fn paid(expr: Expr<'_>) -> Expr<'_> {
    match is_small(&expr) {
        true => expr,
        false => {
            let span = expr.span();
            call(PAID, vec![expr], span)
        }
    }
}

#[derive(Default)]
struct Walk {
    names: BTreeSet<String>,
    paths: BTreeSet<String>,
}

impl Walk {
    fn expr<'a>(&mut self, expr: &Expr<'a>, depth: usize) -> Result<Expr<'a>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::SyntaxError,
                format!("the expression is nested more than {MAX_DEPTH} deep"),
            ));
        }
        let next = depth + 1;
        let span = expr.span();
        Ok(match expr {
            Expr::Var(var) => {
                self.names.insert(var.id.to_owned());
                self.paths.insert(var.id.to_owned());
                Expr::Var(Spanned::new(ast::Var { id: var.id }, span))
            }
            Expr::Const(constant) => Expr::Const(Spanned::new(
                ast::Const {
                    value: constant.value.clone(),
                },
                span,
            )),
            Expr::Slice(slice) => {
                let slice = ast::Slice {
                    expr: paid(self.expr(&slice.expr, next)?),
                    start: self.option(&slice.start, next)?,
                    stop: self.option(&slice.stop, next)?,
                    step: self.option(&slice.step, next)?,
                };
                Expr::Slice(Spanned::new(slice, span))
            }
            Expr::UnaryOp(unary) => {
                let unary = ast::UnaryOp {
                    op: match unary.op {
                        UnaryOpKind::Not => UnaryOpKind::Not,
                        UnaryOpKind::Neg => UnaryOpKind::Neg,
                    },
                    expr: self.expr(&unary.expr, next)?,
                };
                Expr::UnaryOp(Spanned::new(unary, span))
            }
            Expr::BinOp(binary) => {
                let left = self.expr(&binary.left, next)?;
                let right = self.expr(&binary.right, next)?;
                self.operator(binary.op, left, right, span)
            }
            Expr::Compare(compare) => {
                let ops = compare.ops.iter().map(|op| {
                    Ok(CompareOp {
                        op: op.op,
                        expr: paid(self.expr(&op.expr, next)?),
                    })
                });
                let ops = ops.collect::<Result<Vec<CompareOp<'a>>, Error>>()?;
                let expr = paid(self.expr(&compare.expr, next)?);
                Expr::Compare(Spanned::new(Compare { expr, ops }, span))
            }
            Expr::IfExpr(choice) => {
                let choice = ast::IfExpr {
                    test_expr: self.expr(&choice.test_expr, next)?,
                    true_expr: self.expr(&choice.true_expr, next)?,
                    false_expr: self.option(&choice.false_expr, next)?,
                };
                Expr::IfExpr(Spanned::new(choice, span))
            }
            Expr::Filter(filter) => {
                let filter = ast::Filter {
                    name: filter.name,
                    expr: self.option(&filter.expr, next)?,
                    args: self.args(&filter.args, next)?,
                };
                Expr::Filter(Spanned::new(filter, span))
            }
            Expr::Test(test) => {
                let test = ast::Test {
                    name: test.name,
                    expr: self.expr(&test.expr, next)?,
                    args: self.args(&test.args, next)?,
                };
                Expr::Test(Spanned::new(test, span))
            }
            Expr::GetAttr(attribute) => {
                let expr = match path(&attribute.expr) {
                    Some(before) => {
                        let root = before.split('.').next().unwrap_or_default().to_owned();
                        self.names.insert(root);
                        self.paths.insert(format!("{before}.{}", attribute.name));
                        // The path is known whole; its beginnings are not paths of their own.
                        Walk::default().expr(&attribute.expr, next)?
                    }
                    None => self.expr(&attribute.expr, next)?,
                };
                let attribute = ast::GetAttr {
                    expr,
                    name: attribute.name,
                };
                Expr::GetAttr(Spanned::new(attribute, span))
            }
            Expr::GetItem(item) => {
                let item = ast::GetItem {
                    expr: self.expr(&item.expr, next)?,
                    subscript_expr: self.expr(&item.subscript_expr, next)?,
                };
                Expr::GetItem(Spanned::new(item, span))
            }
            Expr::Call(call) => {
                let call = Call {
                    expr: self.expr(&call.expr, next)?,
                    args: self.args(&call.args, next)?,
                };
                Expr::Call(Spanned::new(call, span))
            }
            Expr::List(list) => {
                let items = self.all(&list.items, next)?;
                Expr::List(Spanned::new(ast::List { items }, span))
            }
            Expr::Tuple(tuple) => {
                let items = self.all(&tuple.items, next)?;
                Expr::Tuple(Spanned::new(ast::Tuple { items }, span))
            }
            Expr::Map(map) => {
                let map = ast::Map {
                    keys: self.all(&map.keys, next)?,
                    values: self.all(&map.values, next)?,
                };
                Expr::Map(Spanned::new(map, span))
            }
        })
    }

    fn operator<'a>(&self, op: BinOpKind, left: Expr<'a>, right: Expr<'a>, span: Span) -> Expr<'a> {
        let (left, right) = match op {
            BinOpKind::Mul => return call(TIMES, vec![left, right], span),
            BinOpKind::Eq
            | BinOpKind::Ne
            | BinOpKind::Lt
            | BinOpKind::Lte
            | BinOpKind::Gt
            | BinOpKind::Gte
            | BinOpKind::Add
            | BinOpKind::Concat
            | BinOpKind::In => (paid(left), paid(right)),
            BinOpKind::ScAnd
            | BinOpKind::ScOr
            | BinOpKind::Sub
            | BinOpKind::Div
            | BinOpKind::FloorDiv
            | BinOpKind::Rem
            | BinOpKind::Pow => (left, right),
        };
        Expr::BinOp(Spanned::new(ast::BinOp { op, left, right }, span))
    }

    fn option<'a>(&mut self, expr: &Option<Expr<'a>>, depth: usize) -> Result<Option<Expr<'a>>, Error> {
        expr.as_ref().map(|expr| self.expr(expr, depth)).transpose()
    }

    fn all<'a>(&mut self, exprs: &[Expr<'a>], depth: usize) -> Result<Vec<Expr<'a>>, Error> {
        exprs.iter().map(|expr| self.expr(expr, depth)).collect()
    }

    fn args<'a>(&mut self, args: &[CallArg<'a>], depth: usize) -> Result<Vec<CallArg<'a>>, Error> {
        let args = args.iter().map(|arg| {
            Ok(match arg {
                CallArg::Pos(expr) => CallArg::Pos(self.expr(expr, depth)?),
                CallArg::Kwarg(name, expr) => CallArg::Kwarg(name, self.expr(expr, depth)?),
                CallArg::PosSplat(expr) => CallArg::PosSplat(self.expr(expr, depth)?),
                CallArg::KwargSplat(expr) => CallArg::KwargSplat(self.expr(expr, depth)?),
            })
        });
        args.collect()
    }
}

/// `sample.family`, where an expression is names alone.
fn path(expr: &Expr<'_>) -> Option<String> {
    match expr {
        Expr::Var(var) => Some(var.id.to_owned()),
        Expr::GetAttr(attribute) => Some(format!("{}.{}", path(&attribute.expr)?, attribute.name)),
        _ => None,
    }
}
