//! Changes operators, conditions, match arms, flags, lengths, and calls.

use std::collections::BTreeSet;

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, FnArg, Lit, Pat, ReturnType, Signature, Type, UnOp};

use super::names::METHODS;
use super::{Collector, range};

/// Methods that return a value of the receiver's type, whose call can be deleted.
const ADJUSTS: [&str; 5] = ["next_multiple_of", "min", "max", "inspect_err", "or_else"];

/// Names of variables, fields and functions that hold or return a length in bytes.
const LENGTHS: [&str; 7] = ["len", "length", "bytes", "size", "old", "new", "room"];

/// What the signatures in a file tell about calls.
#[derive(Default)]
pub struct Signatures {
    /// Functions with one parameter, whose type they return.
    keep_type: BTreeSet<String>,
    /// Functions that do not return.
    diverge: BTreeSet<String>,
}

impl Signatures {
    pub fn of(file: &syn::File) -> Signatures {
        struct Reader(Signatures);
        impl Visit<'_> for Reader {
            fn visit_signature(&mut self, signature: &Signature) {
                let name = signature.ident.to_string();
                let ReturnType::Type(_, returned) = &signature.output else {
                    return;
                };
                if matches!(**returned, Type::Never(_)) {
                    self.0.diverge.insert(name);
                } else if let [FnArg::Typed(parameter)] =
                    &signature.inputs.iter().collect::<Vec<_>>()[..]
                    && same(&parameter.ty, returned)
                {
                    self.0.keep_type.insert(name);
                }
            }
        }
        let mut reader = Reader(Signatures::default());
        visit::visit_file(&mut reader, file);
        reader.0
    }
}

impl Collector<'_> {
    pub fn change_expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Binary(_) if are_flags(expression) => self.delete_flags(expression),
            Expr::Binary(binary) => self.change_operator(binary),
            Expr::Unary(unary) => self.delete_operator(unary),
            Expr::Lit(literal) => {
                if let Lit::Bool(value) = &literal.lit {
                    self.replace(literal, if value.value { "false" } else { "true" });
                }
            }
            Expr::If(branch) => self.change_condition(branch),
            Expr::Match(choice) => self.change_arms(choice),
            Expr::Try(checked) => {
                let place = checked.question_token.span.byte_range();
                let what = format!(
                    "panic on an error of {}",
                    self.quoted(range(&*checked.expr))
                );
                self.add(place, ".unwrap()", what);
            }
            Expr::Call(call) => self.change_call(expression, call),
            Expr::MethodCall(call) => self.change_method(call),
            _ => {}
        }
    }

    fn delete_flags(&mut self, expression: &Expr) {
        let flags = flags(expression);
        for (deleted, flag) in flags.iter().enumerate() {
            let others = flags.iter().enumerate().filter(|(n, _)| *n != deleted);
            let others: Vec<_> = others.map(|(_, other)| self.text(*other)).collect();
            let text = others.join(" | ");
            let what = format!(
                "delete the flag {} of {}",
                self.quoted(range(*flag)),
                self.quoted(range(expression))
            );
            self.add(range(expression), text, what);
        }
    }

    fn change_operator(&mut self, binary: &syn::ExprBinary) {
        let others: &[&str] = match binary.op {
            BinOp::Add(_) => &["-"],
            BinOp::Sub(_) => &["+"],
            BinOp::Mul(_) => &["/"],
            BinOp::Div(_) => &["*"],
            BinOp::Rem(_) => &["/"],
            BinOp::And(_) => &["||"],
            BinOp::Or(_) => &["&&"],
            BinOp::BitXor(_) => &["|"],
            BinOp::BitAnd(_) => &["|"],
            BinOp::BitOr(_) => &["&"],
            BinOp::Shl(_) => &[">>"],
            BinOp::Shr(_) => &["<<"],
            BinOp::Eq(_) => &["!="],
            BinOp::Ne(_) => &["=="],
            BinOp::Lt(_) => &["<=", ">="],
            BinOp::Gt(_) => &[">=", "<="],
            BinOp::Le(_) => &["<", ">"],
            BinOp::Ge(_) => &[">", "<"],
            BinOp::AddAssign(_) => &["-="],
            BinOp::SubAssign(_) => &["+="],
            BinOp::MulAssign(_) => &["/="],
            BinOp::DivAssign(_) => &["*="],
            BinOp::BitAndAssign(_) => &["|="],
            BinOp::BitOrAssign(_) => &["&="],
            _ => &[],
        };
        for other in others {
            let what = format!(
                "replace `{}` by `{other}` in {}",
                self.text(&binary.op),
                self.quoted(range(binary))
            );
            self.add(range(&binary.op), *other, what);
        }
    }

    fn delete_operator(&mut self, unary: &syn::ExprUnary) {
        if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let what = format!(
                "delete `{}` of {}",
                self.text(&unary.op),
                self.quoted(range(unary))
            );
            self.add(range(&unary.op), "", what);
        }
    }

    /// A branch without `else` is deleted as a statement.
    fn change_condition(&mut self, branch: &syn::ExprIf) {
        if has_let(&branch.cond) {
            return;
        }
        self.replace_condition(&branch.cond, "true");
        if branch.else_branch.is_some() {
            self.replace_condition(&branch.cond, "false");
        }
    }

    fn replace_condition(&mut self, condition: &Expr, value: &str) {
        let what = format!(
            "replace the condition {} by `{value}`",
            self.quoted(range(condition))
        );
        self.add(range(condition), value, what);
    }

    fn change_arms(&mut self, choice: &syn::ExprMatch) {
        for (n, arm) in choice.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                self.replace_condition(guard, "true");
                self.replace_condition(guard, "false");
            }
            let is_covered = |arm: &syn::Arm| {
                matches!(arm.pat, Pat::Wild(_) | Pat::Ident(_)) && arm.guard.is_none()
            };
            if choice.arms.iter().skip(n + 1).any(is_covered) {
                let what = format!("delete the arm {}", self.quoted(range(arm)));
                self.add(range(arm), "", what);
            }
        }
    }

    fn change_call(&mut self, expression: &Expr, call: &syn::ExprCall) {
        for argument in &call.args {
            self.change_length(argument);
        }
        let Some(name) = called(call) else {
            return;
        };
        let only = match call.args.len() {
            1 => call.args.first(),
            _ => None,
        };
        if self.signatures.keep_type.contains(&name)
            && let Some(argument) = only
        {
            let text = format!("({})", self.text(argument));
            self.replace(expression, &text);
        }
        // mem::take(&mut place)
        if name == "take"
            && let Some(Expr::Reference(place)) = only
        {
            let text = self.text(&*place.expr).to_owned();
            self.replace(expression, &text);
        }
        if ["abort", "_exit"].contains(&name.as_str()) || self.signatures.diverge.contains(&name) {
            self.replace(expression, "panic!()");
        }
    }

    fn change_method(&mut self, call: &syn::ExprMethodCall) {
        for argument in &call.args {
            self.change_length(argument);
        }
        let name = call.method.to_string();
        if ADJUSTS.contains(&name.as_str()) {
            let end = range(&*call.receiver).end..range(call).end;
            let what = format!("delete {}", self.quoted(end.clone()));
            self.add(end, "", what);
        }
        if let Some((_, other)) = METHODS.iter().find(|(one, _)| *one == name) {
            let what = format!(
                "replace `{name}` by `{other}` in {}",
                self.quoted(range(call))
            );
            self.add(range(&call.method), *other, what);
        }
    }

    /// Makes a length in an argument shorter or longer by a byte, or longer by 64 KiB, which is at least a page on every
    /// machine.
    fn change_length(&mut self, argument: &Expr) {
        let name = match argument {
            Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            Expr::Field(field) => match &field.member {
                syn::Member::Named(name) => Some(name.to_string()),
                syn::Member::Unnamed(_) => None,
            },
            Expr::MethodCall(call) if call.method == "get" => match &*call.receiver {
                Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
                _ => None,
            },
            Expr::MethodCall(call) if call.args.is_empty() => Some(call.method.to_string()),
            _ => None,
        };
        if name.is_some_and(|name| LENGTHS.contains(&name.to_lowercase().as_str())) {
            for change in ["+ 1", "- 1", "+ (1 << 16)"] {
                let text = format!("{} {change}", self.text(argument));
                self.replace(argument, &text);
            }
        }
    }
}

fn same(one: &Type, other: &Type) -> bool {
    one.to_token_stream().to_string() == other.to_token_stream().to_string()
}

/// The name of the function that is called.
fn called(call: &syn::ExprCall) -> Option<String> {
    let Expr::Path(path) = &*call.func else {
        return None;
    };
    path.path.segments.last().map(|last| last.ident.to_string())
}

fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether the expression is `FLAG | FLAG`, or with more of them.
pub fn are_flags(expression: &Expr) -> bool {
    matches!(expression, Expr::Binary(_)) && flags(expression).iter().all(|flag| is_flag(flag))
}

fn is_flag(expression: &Expr) -> bool {
    let Expr::Path(path) = expression else {
        return false;
    };
    let last = path.path.segments.last().map(|last| last.ident.to_string());
    last.is_some_and(|name| !name.contains(|letter: char| letter.is_lowercase()))
}

/// The operands of `|`, in order.
pub fn flags(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::Binary(syn::ExprBinary {
            left,
            op: BinOp::BitOr(_),
            right,
            ..
        }) => [flags(left), flags(right)].concat(),
        other => vec![other],
    }
}
