//! Mutants: copies of a source file with one small change each. `cargo test --test mutants` grades those of the solutions.
//!
//! The operators are those of cargo-mutants (function bodies, operators, match arms) and some for code that manages
//! memory: statements, error checks, flags, error codes, lengths. Each edits the text of the file at a place that the
//! syntax tree names, so formatting and comments stay as they are.
//!
//! - `bodies`: replaces the body of a function by a value of its type.
//! - `statements`: deletes a statement, or swaps it with the next one.
//! - `expressions`: changes operators, conditions, match arms, flags, lengths, and calls.
//! - `names`: the constants and functions that are replaced by another one.
//!
//! An operator is left out if most of its mutants behave like the original (other memory orders, other values of
//! constants that only tune), or if another mutant of the same place implies it: of the replacements of `+`, only `-`.

mod bodies;
mod expressions;
mod names;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One change to a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mutant {
    /// The path of the function or constant within the file, such as `merge::Heap::trim`.
    pub function: String,
    /// A description of the change, such as "replace `>` by `>=` in `len > max`". Unique within the function.
    pub change: String,
    /// The bytes that are replaced, and their replacement.
    pub range: Range<usize>,
    pub text: String,
}

/// Returns the mutants of a source file, in its order. No two of them have the same code.
///
/// # Errors
/// Returns an error if the file is not valid Rust.
pub fn of(source: &str) -> syn::Result<Vec<Mutant>> {
    let file = syn::parse_file(source)?;
    let mut collector = Collector {
        source,
        path: Vec::new(),
        signatures: expressions::Signatures::of(&file),
        mutants: Vec::new(),
    };
    collector.visit_file(&file);
    Ok(distinct(source, collector.mutants))
}

/// Leaves out mutants with the same code as another one or as the original, and numbers equal descriptions.
fn distinct(source: &str, mutants: Vec<Mutant>) -> Vec<Mutant> {
    let mut codes = BTreeSet::from([unspaced(source)]);
    let mut named: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for mut mutant in mutants {
        let mut changed = source.to_owned();
        changed.replace_range(mutant.range.clone(), &mutant.text);
        if !codes.insert(unspaced(&changed)) {
            continue;
        }
        let key = (mutant.function.clone(), mutant.change.clone());
        let times = named.entry(key).or_default();
        *times += 1;
        if *times > 1 {
            mutant.change += &format!(", place {times}");
        }
        kept.push(mutant);
    }
    kept.sort_by_key(|mutant| mutant.range.start);
    kept
}

/// Returns the text without comments, and with single spaces.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        // In a string, the slashes follow a character.
        Some(at) if at == 0 || line[..at].ends_with(' ') => &line[..at],
        _ => line,
    });
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

fn unspaced(text: &str) -> String {
    code(text).replace(' ', "")
}

/// Visits the syntax tree, and lets each operator add its mutants.
struct Collector<'a> {
    source: &'a str,
    /// Modules, types and functions around the current place.
    path: Vec<String>,
    signatures: expressions::Signatures,
    mutants: Vec<Mutant>,
}

impl Collector<'_> {
    /// Adds a mutant. `description` continues the sentence "This mutant would …".
    fn add(&mut self, range: Range<usize>, text: impl Into<String>, description: String) {
        self.mutants.push(Mutant {
            function: self.path.join("::"),
            change: description,
            range,
            text: text.into(),
        });
    }

    /// Replaces a node by `text`, and describes both.
    fn replace(&mut self, node: &impl Spanned, text: &str) {
        let what = format!("replace {} by `{text}`", self.quoted(range(node)));
        self.add(range(node), text, what);
    }

    fn text(&self, node: &impl Spanned) -> &str {
        &self.source[range(node)]
    }

    /// The code in `range` as it is quoted in descriptions. Long code is cut.
    fn quoted(&self, range: Range<usize>) -> String {
        const LONGEST: usize = 72;
        let code = code(&self.source[range]);
        match code.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("`{}…`", code[..end].trim_end()),
            None => format!("`{code}`"),
        }
    }

    fn within(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.path.push(name);
        visit(self);
        self.path.pop();
    }
}

fn range(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(item.ident.to_string(), |this| {
            visit::visit_item_mod(this, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.within(name.unwrap_or_default(), |this| {
            visit::visit_item_impl(this, item);
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(item.sig.ident.to_string(), |this| {
            this.change_body(&item.sig, &item.block);
            visit::visit_item_fn(this, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(item.sig.ident.to_string(), |this| {
            this.change_body(&item.sig, &item.block);
            visit::visit_impl_item_fn(this, item);
        });
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.within(item.ident.to_string(), |this| this.visit_expr(&item.expr));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.within(item.ident.to_string(), |this| this.visit_expr(&item.expr));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.within(item.ident.to_string(), |this| this.visit_expr(&item.expr));
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.change_statements(&block.stmts);
        visit::visit_block(self, block);
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        // To delete the only statement of a branch is to delete the branch.
        if branch.else_branch.is_none()
            && let [only] = &branch.then_branch.stmts[..]
        {
            self.visit_expr(&branch.cond);
            self.ignore_error(only);
            self.visit_stmt(only);
        } else {
            visit::visit_expr_if(self, branch);
        }
    }

    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        self.change_expression(expression);
        // The operands of flags are deleted one by one, and have no operators left.
        if !expressions::are_flags(expression) {
            visit::visit_expr(self, expression);
        } else {
            for flag in expressions::flags(expression) {
                visit::visit_expr(self, flag);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.change_name(path);
        visit::visit_path(self, path);
    }

    // Attributes and types have no behaviour.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
}
