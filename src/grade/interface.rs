//! Compares the public items of an answer with those of the stub, to explain why the grader does not compile with it.
//!
//! A difference alone is not a mistake: learners may add items and bounds, and the stage `views` is about lifetimes.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Fields, FnArg, GenericParam, Generics, ImplItem, Item, ReturnType, Signature,
    UseTree, Visibility,
};

/// A way in which an answer's public items differ from the stub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name of the item without its path, as a diagnostic mentions it.
    pub name: String,
    /// Observed, expected, and what to do.
    pub sentence: String,
    /// Whether it is unlikely to be the reason of an error.
    pub is_weak: bool,
    /// Whether an item that seems to be missing may come from a macro or a re-export.
    pub may_exist: bool,
}

impl Difference {
    fn new(name: &str, sentence: String) -> Difference {
        Difference {
            name: name.to_owned(),
            sentence,
            is_weak: false,
            may_exist: false,
        }
    }
}

/// A bound on a type parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// `Shared<T>` or `Shared::run_child`.
    pub item: String,
    /// `T`.
    pub parameter: String,
    /// The name of the trait, without its path and its parameters.
    pub name: String,
}

/// The items of a crate, by their names in it. Modules are left out of the names, because they may be re-exported.
#[derive(Debug, Default)]
pub struct Interface {
    functions: BTreeMap<String, Function>,
    types: BTreeMap<String, Type>,
    /// Type and trait.
    impls: BTreeSet<(String, String)>,
    /// The types in the implementation of a trait, such as `Target` of `Deref` for `Shared`.
    associated: BTreeMap<(String, String), Text>,
    bounds: BTreeSet<Bound>,
    /// Whether a macro or a re-export may add items that are not in the source.
    is_incomplete: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    is_public: bool,
    is_unsafe: bool,
    is_const: bool,
    is_async: bool,
    receiver: Option<Text>,
    parameters: Vec<Text>,
    returns: Text,
    /// Type and constant parameters.
    generics: Vec<String>,
    /// Whether a lifetime of a parameter is named.
    names_lifetimes: bool,
    shown: Text,
}

#[derive(Debug, PartialEq, Eq)]
struct Type {
    is_public: bool,
    /// All parameters.
    generics: Vec<String>,
    /// Public fields, or variants, with their types.
    members: Vec<(String, Text)>,
    has_private_fields: bool,
    is_non_exhaustive: bool,
    is_enum: bool,
    shown: String,
}

/// A piece of source: as it is compared and as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    /// With full paths and without lifetimes.
    compared: String,
    shown: String,
    shown_without_lifetimes: String,
}

impl Interface {
    /// Parses the files of a crate; `None` if one is not Rust.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a str>) -> Option<Interface> {
        let mut interface = Interface::default();
        for file in files {
            interface.read(&syn::parse_file(file).ok()?.items, BTreeMap::new());
        }
        Some(interface)
    }

    /// `names` are those of the module around the items, because they may be imported by `use super::*`.
    fn read(&mut self, items: &[Item], mut names: BTreeMap<String, String>) {
        names.extend(imports(items));
        for item in items {
            match item {
                Item::Fn(function) => {
                    let name = function.sig.ident.to_string();
                    let is_public = is_public(&function.vis);
                    self.add_function(name, is_public, &function.sig, &Scope::of(&names));
                }
                Item::Struct(item) => {
                    self.add_derives(&item.ident.to_string(), &item.attrs);
                    let public = members(&item.fields, &Scope::of(&names));
                    let has_private_fields = public.len() < item.fields.len();
                    let shown = format!("struct {}", item.ident);
                    let described = Type {
                        members: public,
                        has_private_fields,
                        is_non_exhaustive: is_non_exhaustive(&item.attrs),
                        ..Type::new(&item.vis, &item.generics, &shown)
                    };
                    self.add_type(&item.ident, &item.generics, described);
                }
                Item::Enum(item) => {
                    self.add_derives(&item.ident.to_string(), &item.attrs);
                    let variants = item.variants.iter().map(|variant| {
                        let fields = variant.fields.to_token_stream();
                        (variant.ident.to_string(), Scope::of(&names).text(fields))
                    });
                    let shown = format!("enum {}", item.ident);
                    let described = Type {
                        members: variants.collect(),
                        is_enum: true,
                        is_non_exhaustive: is_non_exhaustive(&item.attrs),
                        ..Type::new(&item.vis, &item.generics, &shown)
                    };
                    self.add_type(&item.ident, &item.generics, described);
                }
                Item::Impl(item) => {
                    let Some(name) = last_name(&item.self_ty) else {
                        continue;
                    };
                    let self_type = item.self_ty.to_token_stream();
                    let scope = Scope {
                        names: &names,
                        self_type: Some(tokens(self_type)),
                    };
                    if let Some((_, path, _)) = &item.trait_ {
                        let Some(last) = path.segments.last() else {
                            continue;
                        };
                        let implemented = format!("{} for {}", last.ident, tidy(&item.self_ty));
                        self.add_bounds(&implemented, &item.generics);
                        self.impls.insert((name.clone(), last.ident.to_string()));
                        for member in &item.items {
                            if let ImplItem::Type(member) = member {
                                let key = (name.clone(), member.ident.to_string());
                                let text = scope.text(member.ty.to_token_stream());
                                self.associated.insert(key, text);
                            }
                        }
                        continue;
                    }
                    self.add_bounds(&tidy(&item.self_ty), &item.generics);
                    for member in &item.items {
                        match member {
                            ImplItem::Fn(function) => {
                                let name = format!("{name}::{}", function.sig.ident);
                                let is_public = is_public(&function.vis);
                                self.add_function(name, is_public, &function.sig, &scope);
                            }
                            ImplItem::Macro(_) => self.is_incomplete = true,
                            _ => {}
                        }
                    }
                }
                Item::Mod(module) if !is_for_tests(&module.attrs) => {
                    if let Some((_, items)) = &module.content {
                        self.read(items, names.clone());
                    }
                }
                Item::Macro(item) => {
                    // `macro_rules!` has a name; `thread_local!` declares private items only.
                    let is_harmless =
                        item.ident.is_some() || item.mac.path.is_ident("thread_local");
                    self.is_incomplete |= !is_harmless;
                }
                Item::Use(item) => self.is_incomplete |= is_public(&item.vis),
                Item::Type(item) => self.is_incomplete |= is_public(&item.vis),
                _ => {}
            }
        }
    }

    fn add_function(&mut self, name: String, is_public: bool, sig: &Signature, scope: &Scope) {
        self.add_bounds(&name, &sig.generics);
        let named = named_types(&sig.generics);
        let mut generics = parameters_of(&sig.generics, false);
        let mut receiver = None;
        let mut parameters = Vec::new();
        for input in &sig.inputs {
            match input {
                FnArg::Receiver(self_) => {
                    let mut self_ = self_.clone();
                    // `mut self` is the same as `self` for a caller.
                    if self_.reference.is_none() {
                        self_.mutability = None;
                    }
                    let mut text = scope.text(self_.to_token_stream());
                    if self_.colon_token.is_some() {
                        // `self: &mut Self` is `&mut self`.
                        let mut tokens = without_lifetimes(&tokens(self_.ty.to_token_stream()));
                        let own = tokens.iter_mut().filter(|token| *token == "Self");
                        own.for_each(|token| *token = "self".to_owned());
                        text.compared = scope.compared(&tokens);
                    }
                    receiver = Some(text);
                }
                FnArg::Typed(typed) => {
                    let name = tidy(&typed.ty);
                    let source = match named.get(&name) {
                        // `f: F` with `F: FnOnce()` is the same as `f: impl FnOnce()` for a caller.
                        Some(source) => {
                            generics.retain(|other| *other != name);
                            source.clone()
                        }
                        None => typed.ty.to_token_stream(),
                    };
                    parameters.push(scope.text(source));
                }
            }
        }
        let returns = match &sig.output {
            ReturnType::Default => "()".parse().unwrap_or_default(),
            ReturnType::Type(_, returned) => returned.to_token_stream(),
        };
        let mut shown = TokenStream::new();
        if is_public {
            shown.extend("pub".parse::<TokenStream>());
        }
        shown.extend(sig.to_token_stream());
        let function = Function {
            is_public,
            is_unsafe: sig.unsafety.is_some(),
            is_const: sig.constness.is_some(),
            is_async: sig.asyncness.is_some(),
            receiver,
            parameters,
            returns: scope.text(returns),
            generics,
            names_lifetimes: tokens(sig.inputs.to_token_stream())
                .iter()
                .any(|token| token.starts_with('\'')),
            shown: scope.text(shown),
        };
        self.functions.entry(name).or_insert(function);
    }

    fn add_type(&mut self, name: &syn::Ident, generics: &Generics, described: Type) {
        self.add_bounds(&format!("{name}{}", arguments_of(generics)), generics);
        self.types.entry(name.to_string()).or_insert(described);
    }

    fn add_derives(&mut self, name: &str, attributes: &[Attribute]) {
        for attribute in attributes {
            if !attribute.path().is_ident("derive") {
                continue;
            }
            // The parser returns an error only for what rustc rejects as well.
            let _ = attribute.parse_nested_meta(|derived| {
                if let Some(last) = derived.path.segments.last() {
                    self.impls.insert((name.to_owned(), last.ident.to_string()));
                }
                Ok(())
            });
        }
    }

    fn add_bounds(&mut self, item: &str, generics: &Generics) {
        let mut add =
            |parameter: String, bounds: &mut dyn Iterator<Item = &syn::TypeParamBound>| {
                for bound in bounds {
                    if let syn::TypeParamBound::Trait(bound) = bound
                        && let Some(last) = bound.path.segments.last()
                    {
                        self.bounds.insert(Bound {
                            item: item.to_owned(),
                            parameter: parameter.clone(),
                            name: last.ident.to_string(),
                        });
                    }
                }
            };
        for parameter in generics.type_params() {
            add(parameter.ident.to_string(), &mut parameter.bounds.iter());
        }
        let predicates = generics
            .where_clause
            .iter()
            .flat_map(|clause| &clause.predicates);
        for predicate in predicates {
            if let syn::WherePredicate::Type(predicate) = predicate {
                add(tidy(&predicate.bounded_ty), &mut predicate.bounds.iter());
            }
        }
    }

    /// Returns the bounds that the stub does not have. An item may have a bound at several places.
    pub fn bounds_beyond<'a>(&'a self, stub: &'a Interface) -> impl Iterator<Item = &'a Bound> {
        let is_in_stub = |bound: &&Bound| stub.bounds.contains(*bound);
        self.bounds.iter().filter(move |bound| !is_in_stub(bound))
    }

    /// Returns the names of the public types.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Returns how the public items of the stub differ in the answer.
    pub fn differences(stub: &Interface, answer: &Interface) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (name, expected) in &stub.types {
            if !expected.is_public {
                continue;
            }
            match answer.types.get(name) {
                Some(found) => type_differences(name, expected, found, &mut differences),
                None => {
                    let sentence = format!(
                        "Your answer has no type {name}; the stub declares `{}`. Restore it.",
                        expected.shown
                    );
                    differences.push(Difference {
                        may_exist: answer.is_incomplete,
                        ..Difference::new(name, sentence)
                    });
                }
            }
        }
        for (name, expected) in stub.functions.iter().filter(|(_, one)| one.is_public) {
            match answer.functions.get(name) {
                Some(found) => differences.extend(function_difference(name, expected, found)),
                None if name
                    .split_once("::")
                    .is_some_and(|(of, _)| !answer.types.contains_key(of)) => {}
                None => differences.push(missing(name, expected, stub, answer)),
            }
        }
        for (key, expected) in &stub.associated {
            let found = answer.associated.get(key);
            if let Some(found) = found.filter(|found| !expected.is_same(found)) {
                let (name, associated) = key;
                differences.push(Difference::new(name, format!(
                        "{name} has `type {associated} = {}`; the stub declares `type {associated} = {}`. Restore it.",
                        found.shown, expected.shown
                    )));
            }
        }
        let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, implemented) in stub.impls.difference(&answer.impls) {
            // No code can need `Drop`, and a type that is missing has been reported.
            if implemented != "Drop" && answer.types.contains_key(name) && !answer.is_incomplete {
                missing.entry(name).or_default().push(implemented.clone());
            }
        }
        differences.extend(missing.into_iter().map(|(name, implemented)| Difference::new(name, format!(
                "{name} does not implement {}; in the stub it does. Restore the implementation.",
                list(&implemented)
            ))));
        differences
    }
}

fn type_differences(name: &str, expected: &Type, found: &Type, into: &mut Vec<Difference>) {
    let mut differ = |item: &str, what: String, shown: &str| {
        into.push(Difference::new(
            item,
            format!("{what}; the stub declares `{shown}`. Restore it."),
        ));
    };
    if !found.is_public {
        differ(name, format!("{name} is not public"), &expected.shown);
    }
    if found.is_non_exhaustive && !expected.is_non_exhaustive {
        differ(
            name,
            format!("{name} is #[non_exhaustive]"),
            &expected.shown,
        );
    }
    if expected.generics != found.generics {
        let what = match found.generics.as_slice() {
            [] => format!("{name} has no generic parameters"),
            generics => format!(
                "{name} has the generic parameters <{}>",
                generics.join(", ")
            ),
        };
        differ(name, what, &expected.shown);
    }
    if expected.is_enum != found.is_enum {
        let what = format!("{name} is declared as `{}`", found.shown);
        differ(name, what, &expected.shown);
        return;
    }
    let (separator, noun) = match expected.is_enum {
        true => ("::", "variant"),
        false => (".", "public field"),
    };
    for (member, expected) in &expected.members {
        let path = format!("{name}{separator}{member}");
        let shown = match noun {
            "variant" => format!("{member}{}", expected.shown),
            _ => format!("pub {member}: {}", expected.shown),
        };
        let mut others = found.members.iter();
        match others.find(|(other, _)| other == member) {
            None => differ(member, format!("{name} has no {noun} {member}"), &shown),
            Some((_, other)) if !expected.is_same(other) => {
                let what = match other.shown.as_str() {
                    "" => format!("{path} has no fields"),
                    shown => format!("{path} has the type {shown}"),
                };
                differ(member, what, &shown);
            }
            Some(_) => {}
        }
    }
    if found.has_private_fields && !expected.has_private_fields {
        into.push(Difference {
            is_weak: true,
            ..Difference::new(
                name,
                format!(
                    "{name} has a private field; in the stub all fields are public. Remove it."
                ),
            )
        });
    }
    let known = |name: &String| expected.members.iter().any(|(member, _)| member == name);
    for (member, _) in found.members.iter().filter(|(name, _)| !known(name)) {
        into.push(Difference { is_weak: true, ..Difference::new(name, format!(
                "{name} has a further {noun}, {member}; the stub has none of this name. Remove it."
            )) });
    }
}

fn function_difference(name: &str, expected: &Function, found: &Function) -> Option<Difference> {
    let mut strong = Vec::new();
    if !found.is_public {
        strong.push("is not public".to_owned());
    }
    if found.is_unsafe && !expected.is_unsafe {
        strong.push("is unsafe".to_owned());
    }
    if expected.is_const && !found.is_const {
        strong.push("is not const".to_owned());
    }
    if expected.is_async != found.is_async {
        strong.push(
            if found.is_async {
                "is async"
            } else {
                "is not async"
            }
            .to_owned(),
        );
    }
    let is_same_receiver = match (&expected.receiver, &found.receiver) {
        (Some(expected), Some(found)) => expected.is_same(found),
        (None, None) => true,
        _ => false,
    };
    if !is_same_receiver {
        strong.push(match &found.receiver {
            Some(receiver) => format!("takes {}", receiver.shown),
            None => "has no self parameter".to_owned(),
        });
    }
    let is_same = |(expected, found): (&Text, &Text)| expected.is_same(found);
    let mut pairs = expected.parameters.iter().zip(&found.parameters);
    if expected.parameters.len() != found.parameters.len() || !pairs.all(is_same) {
        let shown: Vec<_> = found
            .parameters
            .iter()
            .map(|text| text.shown.as_str())
            .collect();
        strong.push(match shown.as_slice() {
            [] => "has no parameters".to_owned(),
            [one] => format!("has a parameter of type {one}"),
            several => format!("has parameters of the types {}", several.join(", ")),
        });
    }
    if expected.generics != found.generics {
        strong.push(match found.generics.as_slice() {
            [] => "has no generic parameters".to_owned(),
            generics => format!("has the generic parameters <{}>", generics.join(", ")),
        });
    }
    if !expected.returns.is_same(&found.returns) {
        strong.push(match found.returns.shown.as_str() {
            "()" => "returns nothing".to_owned(),
            shown => format!("returns {shown}"),
        });
    }
    let short = name.rsplit("::").next().unwrap_or(name);
    if !strong.is_empty() {
        return Some(Difference::new(
            short,
            format!(
                "{name} {}; the task's signature is `{}`. Restore it.",
                list(&strong),
                expected.shown_for_learner()
            ),
        ));
    }
    let weak = if expected.is_unsafe && !found.is_unsafe {
        format!(
            "{name} is a safe function; the task's signature is `{}`. Restore it.",
            expected.shown_for_learner()
        )
    } else if found.names_lifetimes && !expected.names_lifetimes {
        format!(
            "{name} has the signature `{}`. With these lifetimes, correct code does not compile. Relax them.",
            found.shown.shown
        )
    } else {
        return None;
    };
    Some(Difference {
        is_weak: true,
        ..Difference::new(short, weak)
    })
}

impl Text {
    /// Whether both mean the same, as far as this can be told: a name may be imported in a way that is not followed.
    fn is_same(&self, other: &Text) -> bool {
        let ends_with = |long: &str, short: &str| {
            let path = long.strip_suffix(short);
            path.is_some_and(|path| path.is_empty() || path.ends_with("::"))
        };
        let (ours, theirs) = (self.compared.split(' '), other.compared.split(' '));
        ours.clone().count() == theirs.clone().count()
            && ours
                .zip(theirs)
                .all(|(ours, theirs)| ends_with(ours, theirs) || ends_with(theirs, ours))
    }
}

impl Type {
    /// A type without members.
    fn new(visibility: &Visibility, generics: &Generics, shown: &str) -> Type {
        let (start, _, _) = generics.split_for_impl();
        Type {
            is_public: is_public(visibility),
            generics: parameters_of(generics, true),
            members: Vec::new(),
            has_private_fields: false,
            is_non_exhaustive: false,
            is_enum: false,
            shown: format!("{}{shown}{}", prefix(visibility), tidy(&start)),
        }
    }
}

impl Function {
    /// The signature. The lifetimes of a method can be elided.
    fn shown_for_learner(&self) -> &str {
        match &self.receiver {
            Some(_) => &self.shown.shown_without_lifetimes,
            None => &self.shown.shown,
        }
    }
}

/// A function of the stub that the answer does not have. It may have been renamed.
fn missing(name: &str, expected: &Function, stub: &Interface, answer: &Interface) -> Difference {
    let alike = |(other, found): &(&String, &Function)| {
        found.is_public
            && !stub.functions.contains_key(*other)
            && other.rsplit_once("::").map(|(of, _)| of) == name.rsplit_once("::").map(|(of, _)| of)
            && function_difference(name, expected, found).is_none_or(|one| one.is_weak)
    };
    let mut renamed = answer.functions.iter().filter(alike);
    let is_renamed = match (renamed.next(), renamed.next()) {
        (Some((other, _)), None) => format!("; {other} has its signature"),
        _ => String::new(),
    };
    let (place, short) = match name.rsplit_once("::") {
        Some((of, short)) => (
            format!("Your answer has no function `{short}` in `impl {of}`"),
            short,
        ),
        None => (format!("Your answer has no function `{name}`"), name),
    };
    let mut difference = Difference::new(
        short,
        format!(
            "{place}{is_renamed}. The task's signature is `{}`. Restore it.",
            expected.shown_for_learner()
        ),
    );
    difference.may_exist = answer.is_incomplete;
    difference
}

/// `a`, `a and b`, `a, b and c`.
fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn is_non_exhaustive(attributes: &[Attribute]) -> bool {
    let is_it = |attribute: &Attribute| attribute.path().is_ident("non_exhaustive");
    attributes.iter().any(is_it)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && tidy(attribute).contains("(test)"))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn prefix(visibility: &Visibility) -> &'static str {
    if is_public(visibility) { "pub " } else { "" }
}

fn last_name(of: &syn::Type) -> Option<String> {
    match of {
        syn::Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

/// The parameters with which an item is used. Parameters with a default can be left out.
fn parameters_of(generics: &Generics, with_lifetimes: bool) -> Vec<String> {
    let parameters = generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Lifetime(lifetime) => with_lifetimes.then(|| tidy(&lifetime.lifetime)),
            GenericParam::Type(parameter) => parameter
                .default
                .is_none()
                .then(|| parameter.ident.to_string()),
            GenericParam::Const(parameter) => parameter
                .default
                .is_none()
                .then(|| format!("const {}: {}", parameter.ident, tidy(&parameter.ty))),
        });
    parameters.collect()
}

/// The type parameters with bounds, each as the `impl` that could replace it.
fn named_types(generics: &Generics) -> BTreeMap<String, TokenStream> {
    let mut bounds: BTreeMap<String, Vec<TokenStream>> = BTreeMap::new();
    for parameter in generics.type_params() {
        let all = parameter.bounds.iter().map(ToTokens::to_token_stream);
        bounds
            .entry(parameter.ident.to_string())
            .or_default()
            .extend(all);
    }
    for predicate in generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates)
    {
        if let syn::WherePredicate::Type(predicate) = predicate
            && let Some(known) = bounds.get_mut(&tidy(&predicate.bounded_ty))
        {
            known.extend(predicate.bounds.iter().map(ToTokens::to_token_stream));
        }
    }
    bounds.retain(|_, bounds| !bounds.is_empty());
    let as_impl = bounds.into_iter().map(|(name, bounds)| {
        let bounds = bounds.into_iter();
        (name, quote::quote!(impl #(#bounds)+*))
    });
    as_impl.collect()
}

fn arguments_of(generics: &Generics) -> String {
    let (_, arguments, _) = generics.split_for_impl();
    tidy(&arguments)
}

fn members(fields: &Fields, scope: &Scope) -> Vec<(String, Text)> {
    let public = fields
        .iter()
        .enumerate()
        .filter(|(_, field)| is_public(&field.vis));
    let described = public.map(|(index, field)| {
        let name = field
            .ident
            .as_ref()
            .map_or(index.to_string(), ToString::to_string);
        (name, scope.text(field.ty.to_token_stream()))
    });
    described.collect()
}

/// The names that `use` brings into scope, with their full paths.
fn imports(items: &[Item]) -> BTreeMap<String, String> {
    fn add(path: &str, tree: &UseTree, names: &mut BTreeMap<String, String>) {
        let below = |name: &syn::Ident| match path {
            "" => name.to_string(),
            path => format!("{path}::{name}"),
        };
        match tree {
            UseTree::Path(tree) => add(&below(&tree.ident), &tree.tree, names),
            UseTree::Name(tree) if tree.ident == "self" => {
                let last = path.rsplit("::").next().unwrap_or(path);
                names.insert(last.to_owned(), path.to_owned());
            }
            UseTree::Name(tree) => {
                names.insert(tree.ident.to_string(), below(&tree.ident));
            }
            UseTree::Rename(tree) => {
                names.insert(tree.rename.to_string(), below(&tree.ident));
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| add(path, tree, names)),
            UseTree::Glob(_) => {}
        }
    }
    let mut names = BTreeMap::new();
    for item in items {
        if let Item::Use(item) = item {
            add("", &item.tree, &mut names);
        }
    }
    names
}

/// What the names in a piece of source mean.
struct Scope<'a> {
    names: &'a BTreeMap<String, String>,
    /// The tokens that `Self` stands for.
    self_type: Option<Vec<String>>,
}

impl Scope<'_> {
    fn of(names: &BTreeMap<String, String>) -> Scope<'_> {
        Scope {
            names,
            self_type: None,
        }
    }

    fn text(&self, source: TokenStream) -> Text {
        let all = tokens(source);
        let erased = without_lifetimes(&all);
        Text {
            compared: self.compared(&erased),
            shown_without_lifetimes: join(&erased),
            shown: join(&all),
        }
    }

    fn compared(&self, tokens: &[String]) -> String {
        let mut replaced: Vec<String> = Vec::new();
        for token in tokens {
            match &self.self_type {
                Some(self_type) if token == "Self" => replaced.extend(self_type.iter().cloned()),
                _ => replaced.push(token.clone()),
            }
        }
        let mut text = String::new();
        for (index, token) in replaced.iter().enumerate() {
            let follows_path = index > 0 && replaced[index - 1] == "::";
            let known = self.names.get(token).filter(|_| !follows_path);
            let full = known.unwrap_or(token);
            let full = full
                .strip_prefix("core::")
                .map_or(full.clone(), |rest| format!("std::{rest}"));
            text += &full;
            text.push(' ');
        }
        let text = text.replace(" :: ", "::").replace("core::", "std::");
        // `Result<T, std::io::Error>` is `std::io::Result<T>`.
        match (
            text.strip_prefix("Result < "),
            text.strip_suffix(", std::io::Error > "),
        ) {
            (Some(_), Some(rest)) => format!("std::io::{rest}> "),
            _ => text,
        }
    }
}

/// Flattens a token stream. A lifetime and a path separator are one token each.
fn tokens(stream: TokenStream) -> Vec<String> {
    let mut flat: Vec<String> = Vec::new();
    let mut joins = false;
    for token in stream {
        let joint = std::mem::take(&mut joins);
        let text = match &token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                flat.extend(
                    [open.to_owned()]
                        .into_iter()
                        .filter(|text| !text.is_empty()),
                );
                flat.extend(tokens(group.stream()));
                flat.extend(
                    [close.to_owned()]
                        .into_iter()
                        .filter(|text| !text.is_empty()),
                );
                continue;
            }
            TokenTree::Punct(punct) => {
                joins = punct.spacing() == proc_macro2::Spacing::Joint;
                punct.to_string()
            }
            other => other.to_string(),
        };
        match flat.last_mut() {
            Some(last) if joint => *last += &text,
            _ => flat.push(text),
        }
    }
    flat
}

/// Removes lifetimes, and the commas and plus signs that belong to them.
fn without_lifetimes(tokens: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut skip = false;
    for token in tokens {
        if std::mem::take(&mut skip) && [",", "+"].contains(&token.as_str()) {
            continue;
        }
        if token.starts_with('\'') {
            skip = true;
            continue;
        }
        // An empty list is left of `<'a>`.
        if token == ">" && kept.last().is_some_and(|last| last == "<") {
            kept.pop();
            continue;
        }
        kept.push(token.clone());
    }
    kept
}

/// Joins tokens in rustfmt's way.
fn join(tokens: &[String]) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |last| &tokens[last]);
        let is_tight = match (before, token.as_str()) {
            ("", _) => true,
            (_, "," | ";" | ")" | "]" | "::" | ":" | ">" | "<") => true,
            ("(" | "[" | "::" | "<" | "&" | "*" | "?" | "!", _) => true,
            ("->" | "," | ":" | "+" | "=" | ";", _) => false,
            (_, "(") => true,
            _ => false,
        };
        if !is_tight {
            text.push(' ');
        }
        text += token;
    }
    text
}

fn tidy(source: &impl ToTokens) -> String {
    join(&tokens(source.to_token_stream()))
}
