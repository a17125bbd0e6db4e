//! The order of an exercise's cases: that of the grader's source, whose authors put causes before their symptoms.

use std::collections::BTreeMap;
use std::fs;

use course::exercise::Exercise;
use proc_macro2::{TokenStream, TokenTree};
use syn::Item;

use crate::grade::grader::Case;

/// The position of each case in its stage. A compile-fail case needs the others to pass, so it comes later.
#[derive(Debug, Default)]
pub struct Order(BTreeMap<String, usize>);

impl Order {
    /// Reads the grader's source. A case that is not found there comes last.
    pub fn of(exercise: &Exercise) -> Order {
        let mut names = Vec::new();
        for stage in &exercise.about.stages {
            let items = parse(exercise, &stage.name);
            names.extend(tests(&items).map(|test| format!("{}::{test}", stage.name)));
        }
        names.extend(compile_fail_cases(&parse(exercise, "main")));
        Order(names.into_iter().zip(0..).collect())
    }

    /// Sorts cases of one stage.
    pub fn sort(&self, cases: &mut [Case]) {
        cases.sort_by_cached_key(|case| {
            let position = self.0.get(&case.name).copied();
            (position.unwrap_or(usize::MAX), case.name.clone())
        });
    }
}

/// The items of a file of the grader; none if it cannot be parsed.
fn parse(exercise: &Exercise, module: &str) -> Vec<Item> {
    let path = exercise.grader().join(format!("{module}.rs"));
    let text = fs::read_to_string(path).unwrap_or_default();
    syn::parse_file(&text).map_or_else(|_| Vec::new(), |file| file.items)
}

fn tests(items: &[Item]) -> impl Iterator<Item = String> {
    items.iter().filter_map(|item| match item {
        Item::Fn(function) => {
            let mut attributes = function.attrs.iter();
            let is_test = attributes.any(|attribute| attribute.path().is_ident("test"));
            is_test.then(|| function.sig.ident.to_string())
        }
        _ => None,
    })
}

/// The cases that `judge::compile_fail! { stage: case, case; … }` names.
fn compile_fail_cases(items: &[Item]) -> Vec<String> {
    let mut cases = Vec::new();
    for item in items {
        if let Item::Macro(item) = item
            && item
                .mac
                .path
                .segments
                .last()
                .is_some_and(|last| last.ident == "compile_fail")
        {
            cases.extend(named_cases(item.mac.tokens.clone()));
        }
    }
    cases
}

fn named_cases(tokens: TokenStream) -> Vec<String> {
    let mut cases = Vec::new();
    let (mut stage, mut last) = (String::new(), None);
    for token in tokens {
        match token {
            TokenTree::Ident(name) => last = Some(name.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                stage = last.take().unwrap_or_default();
            }
            _ => cases.extend(last.take().map(|case| format!("{stage}::{case}"))),
        }
    }
    cases.extend(last.map(|case| format!("{stage}::{case}")));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use course::root;

    fn exercise(name: &str) -> Exercise {
        let root = root::find().expect("the tests run in a clone");
        Exercise::find(&root, name).expect("an exercise")
    }

    #[test]
    fn cases_are_in_the_order_of_the_source_and_compile_fail_cases_follow() {
        let order = Order::of(&exercise("private-alloc"));
        let position = |name: &str| order.0[name];
        assert!(position("by_hand::unmapped") < position("by_hand::failed_unmap_is_an_error"));
        assert!(position("views::sent_to_a_thread") < position("views::two_writers"));
        assert!(position("views::view_outlives_region") < position("views::dropped_while_viewed"));
    }

    /// A new way to declare cases must not fall back to the alphabet unnoticed.
    #[test]
    fn every_case_of_a_stage_has_a_position() {
        for name in [
            "private-alloc",
            "shared-ipc",
            "mutex-counter",
            "threshold-alloc",
        ] {
            let exercise = exercise(name);
            let order = Order::of(&exercise);
            for stage in &exercise.about.stages {
                let is_of = |case: &&String| case.starts_with(&format!("{}::", stage.name));
                assert!(
                    order.0.keys().any(|case| is_of(&case)),
                    "{name}: {}",
                    stage.name
                );
            }
        }
    }

    #[test]
    fn the_stages_of_a_macro_are_separated() {
        let tokens = "first: a, b,; second: c".parse().expect("tokens");
        assert_eq!(named_cases(tokens), ["first::a", "first::b", "second::c"]);
    }
}
