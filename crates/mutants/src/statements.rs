//! Deletes a statement, or swaps it with the next one.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Expr, Pat, Stmt};

use super::{Collector, range};

impl Collector<'_> {
    pub fn change_statements(&mut self, statements: &[Stmt]) {
        for statement in statements {
            if can_be_deleted(statement) {
                let place = range(statement);
                let what = format!("delete {}", self.quoted(place.clone()));
                self.add(place, "", what);
            }
            self.ignore_error(statement);
        }
        for pair in statements.windows(2) {
            let [one, other] = pair else { continue };
            if can_be_swapped(one, other) {
                let (first, second) = (range(one), range(other));
                let what = format!(
                    "swap {} and {}",
                    self.quoted(first.clone()),
                    self.quoted(second.clone())
                );
                let between = &self.source[first.end..second.start];
                let text = [self.text(other), between, self.text(one)].concat();
                self.add(first.start..second.end, text, what);
            }
        }
    }

    /// `check(…)?;` becomes `let _ = check(…);`.
    pub fn ignore_error(&mut self, statement: &Stmt) {
        if let Stmt::Expr(Expr::Try(checked), Some(_)) = statement {
            let text = format!("let _ = {};", self.text(&*checked.expr));
            let what = format!("ignore an error of {}", self.quoted(range(&*checked.expr)));
            self.add(range(statement), text, what);
        }
    }
}

/// Whether the code can compile without the statement.
fn can_be_deleted(statement: &Stmt) -> bool {
    match statement {
        Stmt::Local(local) => is_unused(&local.pat) && has_effect(local),
        Stmt::Expr(_, Some(_)) | Stmt::Macro(_) => true,
        Stmt::Expr(Expr::If(branch), None) => branch.else_branch.is_none(),
        Stmt::Expr(expression, None) => {
            matches!(expression, Expr::ForLoop(_) | Expr::While(_))
        }
        Stmt::Item(_) => false,
    }
}

/// `_` or `_guard`.
fn is_unused(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        Pat::Ident(name) => name.ident.to_string().starts_with('_'),
        _ => false,
    }
}

/// Whether the initial value comes from a call. A closure is called later.
fn has_effect(local: &syn::Local) -> bool {
    struct Calls(bool);
    impl Visit<'_> for Calls {
        fn visit_expr_call(&mut self, _: &syn::ExprCall) {
            self.0 = true;
        }
        fn visit_expr_method_call(&mut self, _: &syn::ExprMethodCall) {
            self.0 = true;
        }
        fn visit_expr_closure(&mut self, _: &syn::ExprClosure) {}
    }
    let mut calls = Calls(false);
    visit::visit_local(&mut calls, local);
    calls.0
}

/// Whether the order can matter and the code can compile in the other one. The order of two plain assignments matters
/// to no test, and a variable cannot be used before it is declared.
fn can_be_swapped(one: &Stmt, other: &Stmt) -> bool {
    let is_complete = |statement: &Stmt| match statement {
        Stmt::Local(_) | Stmt::Expr(_, Some(_)) => true,
        Stmt::Expr(expression, None) => {
            matches!(expression, Expr::If(_) | Expr::ForLoop(_) | Expr::While(_))
        }
        Stmt::Item(_) | Stmt::Macro(_) => false,
    };
    let is_assignment = |statement: &Stmt| match statement {
        Stmt::Local(local) => !has_effect(local),
        Stmt::Expr(Expr::Assign(assign), _) => {
            matches!(*assign.right, Expr::Path(_) | Expr::Lit(_))
        }
        _ => false,
    };
    is_complete(one)
        && is_complete(other)
        && !is_assignment(one)
        && !is_assignment(other)
        && declared(one).is_disjoint(&mentioned(other))
}

fn declared(statement: &Stmt) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Visit<'_> for Names {
        fn visit_pat_ident(&mut self, pattern: &syn::PatIdent) {
            self.0.insert(pattern.ident.to_string());
        }
    }
    let mut names = Names(BTreeSet::new());
    if let Stmt::Local(local) = statement {
        names.visit_pat(&local.pat);
    }
    names.0
}

fn mentioned(statement: &Stmt) -> BTreeSet<String> {
    fn collect(tokens: TokenStream, names: &mut BTreeSet<String>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => collect(group.stream(), names),
                TokenTree::Ident(name) => {
                    names.insert(name.to_string());
                }
                _ => {}
            }
        }
    }
    let mut names = BTreeSet::new();
    collect(statement.to_token_stream(), &mut names);
    names
}
