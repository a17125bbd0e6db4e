//! Explains why a grader does not compile with an answer that compiles by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use course::cargo::Diagnostic;
use course::exercise::Exercise;

use crate::grade::interface::{Bound, Difference, Interface};

/// The answer's public items are not those that the grader uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// What differs, and what to do.
    pub sentence: String,
    /// The compiler's first errors.
    pub rustc: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(
            out,
            "{}\n\nrustc on the grader's code, which you do not edit:\n\n{}",
            self.sentence, self.rustc
        )
    }
}

impl std::error::Error for BuildError {}

/// The number of errors that are shown. One mistake can cause dozens.
const MOST: usize = 2;

impl BuildError {
    /// `errors` are the compiler's errors in the grader.
    pub fn new(exercise: &Exercise, errors: &[Diagnostic]) -> BuildError {
        BuildError {
            sentence: sentence(exercise, errors),
            rustc: first(errors),
        }
    }
}

fn first(errors: &[Diagnostic]) -> String {
    // An error without a place in the source is a summary.
    let placed: Vec<_> = errors
        .iter()
        .filter(|error| !error.spans.is_empty())
        .collect();
    let shown = placed
        .iter()
        .take(MOST)
        .filter_map(|error| error.rendered.as_deref());
    let mut text = shown.map(str::trim_end).collect::<Vec<_>>().join("\n\n");
    match placed.len().saturating_sub(MOST) {
        0 => {}
        1 => text += "\n\nThere is one further error.",
        more => text += &format!("\n\nThere are {more} further errors."),
    }
    text
}

fn sentence(exercise: &Exercise, errors: &[Diagnostic]) -> String {
    let stub = fs::read_to_string(exercise.stub()).ok();
    let stub = stub.and_then(|text| Interface::of([text.as_str()]));
    let answer = files(&exercise.folder().join("src"));
    let answer = answer.and_then(|files| Interface::of(files.iter().map(String::as_str)));
    let explained = match (stub, answer) {
        (Some(stub), Some(answer)) => explain(&stub, &answer, errors),
        _ => None,
    };
    explained.unwrap_or_else(|| {
        let mut places = errors.iter().flat_map(|error| &error.spans).filter(|span| span.is_primary);
        match places.all(|span| span.file_name.contains("src/")) {
            true => "Your code compiles by itself, but not with the types that the grader uses it with.".to_owned(),
            false => format!(
                "The grader does not compile with your answer. Compare your public items with those of \
                 exercises/{}/stub.rs.",
                exercise.name
            ),
        }
    })
}

/// Returns the contents of the answer's files.
fn files(source: &Path) -> Option<Vec<String>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(fs::read_to_string(path).ok()?);
            }
        }
    }
    Some(files)
}

/// Returns the reason of the errors, as far as they show it.
fn explain(stub: &Interface, answer: &Interface, errors: &[Diagnostic]) -> Option<String> {
    let texts: Vec<&str> = errors.iter().flat_map(texts).collect();
    let is_named = |difference: &Difference| {
        let mut texts = texts.iter();
        texts.any(|text| {
            has_word(text, &difference.name) && (!difference.may_exist || says_missing(text))
        })
    };
    let differences = Interface::differences(stub, answer);
    let (weak, strong): (Vec<_>, Vec<_>) = differences.iter().partition(|one| one.is_weak);
    let named = |of: &[&Difference]| {
        let named = of.iter().filter(|one| is_named(one));
        named.map(|one| one.sentence.clone()).collect::<Vec<_>>()
    };
    // A changed item may no longer satisfy a bound, so it comes first.
    let mut sentences = named(&strong);
    if sentences.is_empty() {
        sentences.extend(too_strict(stub, answer, &texts));
    }
    if sentences.is_empty() {
        sentences.extend(not_static(&texts));
    }
    if sentences.is_empty() {
        sentences.extend(not_thread_safe(stub, &texts));
    }
    if sentences.is_empty() {
        sentences = named(&weak);
    }
    if sentences.is_empty() {
        sentences.extend(bound_of_one_impl(stub, answer));
    }
    if sentences.is_empty() {
        // The error may be about a value that comes from a changed function.
        sentences.extend(strong.iter().map(|one| one.sentence.clone()));
    }
    sentences.truncate(3);
    (!sentences.is_empty()).then(|| sentences.join("\n"))
}

/// Everything that an error says, and the lines to which it points.
fn texts(error: &Diagnostic) -> Vec<&str> {
    let mut texts = vec![error.message.as_str()];
    for span in &error.spans {
        texts.extend(span.label.as_deref());
        texts.extend(span.text.iter().map(|line| line.text.as_str()));
    }
    texts.extend(error.children.iter().flat_map(self::texts));
    texts
}

/// Whether the compiler does not find a name.
fn says_missing(text: &str) -> bool {
    let beginnings = ["no ", "cannot find ", "unresolved import"];
    beginnings
        .iter()
        .any(|beginning| text.starts_with(beginning))
}

fn has_word(text: &str, word: &str) -> bool {
    let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.any(|other| other == word)
}

/// A bound of the answer that a type of the grader does not satisfy.
fn too_strict(stub: &Interface, answer: &Interface, texts: &[&str]) -> Option<String> {
    let unsatisfied: Vec<_> = texts.iter().flat_map(|text| unsatisfied(text)).collect();
    let bounds = answer.bounds_beyond(stub);
    let fails = |bound: &&Bound| unsatisfied.iter().any(|(_, name)| *name == bound.name);
    // If a type has the bound, its implementations repeat it.
    let bound = bounds
        .filter(fails)
        .min_by_key(|bound| bound.item.contains(" for "))?;
    let mut seen = BTreeSet::new();
    let types: Vec<_> = unsatisfied
        .iter()
        .filter(|(of, name)| *name == bound.name && *of != bound.parameter && seen.insert(*of))
        .map(|(of, _)| *of)
        .collect();
    let (item, parameter, name) = (&bound.item, &bound.parameter, &bound.name);
    let with = types.first()?;
    let with = without_paths(with);
    Some(format!(
        "{item} requires {parameter}: {name}, but the grader uses it with {with}, which is not {name}. Relax the bound."
    ))
}

/// A bound of `'static`, of the answer's items or of a trait that they require. The error names no type.
fn not_static(texts: &[&str]) -> Option<String> {
    let outlives = |text: &&str| text.contains("must outlive `'static`");
    texts.iter().any(outlives).then(|| {
        "A bound of your answer requires 'static, but the grader uses it with a type that borrows. Relax the bound."
            .to_owned()
    })
}

/// A bound that only one implementation of a trait has. rustc does not mention it: it finds no implementation.
fn bound_of_one_impl(stub: &Interface, answer: &Interface) -> Option<String> {
    let all: Vec<_> = answer.bounds_beyond(stub).collect();
    let is_alone = |bound: &&&Bound| {
        let same = |other: &&&Bound| other.parameter == bound.parameter && other.name == bound.name;
        bound.item.contains(" for ") && all.iter().filter(same).count() == 1
    };
    let bound = all.iter().find(is_alone)?;
    let (item, parameter, name) = (&bound.item, &bound.parameter, &bound.name);
    Some(format!(
        "Only `{item}` requires {parameter}: {name}; your other items do not. Relax the bound."
    ))
}

/// `[AtomicU64; 2]` for `[std::sync::atomic::AtomicU64; 2]`.
fn without_paths(of: &str) -> String {
    let mut short = String::new();
    for (index, part) in of.split("::").enumerate() {
        let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        if index > 0 && part.starts_with(is_name) {
            short.truncate(short.trim_end_matches(is_name).len());
        }
        short += part;
    }
    short
}

/// The pairs of type and trait of which an error says that the type does not implement the trait.
fn unsatisfied(text: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    for quoted in &quoted {
        if let Some((of, name)) = quoted.rsplit_once(": ") {
            pairs.push((of, trait_name(name)));
        }
    }
    // the trait `Copy` is not implemented for `AtomicU64`
    if let [name, of, ..] = quoted.as_slice()
        && text.contains("is not implemented for")
    {
        pairs.push((of, trait_name(name)));
    }
    // `AtomicU64` doesn't implement `Debug`
    if let [of, name, ..] = quoted.as_slice()
        && text.contains("doesn't implement")
    {
        pairs.push((of, trait_name(name)));
    }
    for (what, name) in [("sent", "Send"), ("shared", "Sync")] {
        if let [of, ..] = quoted.as_slice()
            && text.contains(&format!("cannot be {what} between threads safely"))
        {
            pairs.push((of, name));
        }
    }
    pairs
}

/// `zerocopy::FromBytes` and `From<u8>` without path and arguments.
fn trait_name(path: &str) -> &str {
    let path = path.split(['<', '(']).next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

/// A type of the task that is not `Send` or not `Sync`, because of a part of it.
fn not_thread_safe(stub: &Interface, texts: &[&str]) -> Option<String> {
    texts.iter().find_map(|text| {
        let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        // within `ThresholdAlloc`, the trait `Sync` is not implemented for `UnsafeCell<State>`
        let [of, name, part] = quoted.as_slice() else {
            return None;
        };
        let is_auto = ["Send", "Sync"].contains(name) && text.contains("is not implemented for");
        let is_of_task = stub.types().any(|known| trait_name(of) == known);
        (is_auto && is_of_task).then(|| {
            let (of, part) = (without_paths(of), without_paths(part));
            format!("{of} is not {name}, because it contains {part}; the grader needs a type that is {name}.")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use course::root;

    /// An error with this message.
    fn error(message: &str) -> Diagnostic {
        Diagnostic {
            level: "error".to_owned(),
            message: message.to_owned(),
            spans: Vec::new(),
            children: Vec::new(),
            rendered: None,
        }
    }

    fn stub(exercise: &str) -> String {
        let root = root::find().expect("the tests run in a clone");
        let path = Exercise::find(&root, exercise).expect("an exercise").stub();
        fs::read_to_string(path).expect("a stub")
    }

    /// Explains why the grader does not compile with the stub in which `old` is replaced.
    fn explained(exercise: &str, (old, new): (&str, &str), errors: &[&str]) -> Option<String> {
        let stub = stub(exercise);
        let answer = stub.replace(old, new);
        assert_ne!(stub, answer, "the stub has no {old:?}");
        let stub = Interface::of([stub.as_str()]).expect("the stub is Rust");
        let answer = Interface::of([answer.as_str()]).expect("the answer is Rust");
        let errors: Vec<_> = errors.iter().map(|message| error(message)).collect();
        explain(&stub, &answer, &errors)
    }

    /// Exercise, text of the stub and its replacement, messages, and the sentence.
    type Change<'a> = (&'a str, (&'a str, &'a str), &'a [&'a str], &'a str);

    /// The messages are rustc's; the quoted lines are those of the grader to which it points.
    #[test]
    fn each_change_of_the_interface_gets_its_sentence() {
        let cases: &[Change] = &[
            (
                "shared-ipc",
                ("pub struct Shared<T> {", "pub struct Shared<T: Copy> {"),
                &["the trait bound `std::sync::atomic::AtomicU64: Copy` is not satisfied"],
                "Shared<T> requires T: Copy, but the grader uses it with AtomicU64, which is not Copy. Relax the bound.",
            ),
            (
                "shared-ipc",
                (
                    "impl<T> Shared<T> {",
                    "impl<T> Shared<T> where T: Default {",
                ),
                &[
                    "the trait `Default` is not implemented for `[std::sync::atomic::AtomicU64; 65536]`",
                ],
                "Shared<T> requires T: Default, but the grader uses it with [AtomicU64; 65536], which is not Default. \
                 Relax the bound.",
            ),
            (
                "shared-ipc",
                ("impl<T> Deref for", "impl<T: Copy> Deref for"),
                &[
                    "no method named `store` found for struct `shared_ipc::Shared<T>` in the current scope",
                ],
                "Only `Deref for Shared<T>` requires T: Copy; your other items do not. Relax the bound.",
            ),
            (
                "shared-ipc",
                ("pub struct Shared<T> {", "pub struct Shared<T: 'static> {"),
                &["requires that `'a` must outlive `'static`"],
                "A bound of your answer requires 'static, but the grader uses it with a type that borrows. Relax the \
                 bound.",
            ),
            (
                "private-alloc",
                (
                    "map_by_hand(len: usize) -> io::Result<",
                    "map_by_hand(len: usize) -> nix::Result<",
                ),
                &["no method named `raw_os_error` found for enum `Errno` in the current scope"],
                "map_by_hand returns nix::Result<*mut u8>; the task's signature is \
                 `pub fn map_by_hand(len: usize) -> io::Result<*mut u8>`. Restore it.",
            ),
            (
                "shared-ipc",
                ("pub struct Shared<T> {", "pub struct Shared<T, U> {"),
                &["missing generics for struct `shared_ipc::Shared`"],
                "Shared has the generic parameters <T, U>; the stub declares `pub struct Shared<T>`. Restore it.",
            ),
            (
                "shared-ipc",
                ("impl<T> Deref for Shared<T> {", "impl<T> Shared<T> {"),
                &["type `Shared<AtomicU64>` cannot be dereferenced"],
                "Shared does not implement Deref; in the stub it does. Restore the implementation.",
            ),
            (
                "private-alloc",
                ("as_slice<'a>(&self)", "as_slice<'a>(&mut self)"),
                &[
                    "cannot borrow `region` as mutable, as it is not declared as mutable",
                    "region.as_slice()",
                ],
                "Region::as_slice takes &mut self; the task's signature is `pub fn as_slice(&self) -> &[u8]`. Restore it.",
            ),
            (
                "private-alloc",
                ("pub fn as_slice<", "pub fn bytes<"),
                &["no method named `as_slice` found for struct `Region` in the current scope"],
                "Your answer has no function `as_slice` in `impl Region`; Region::bytes has its signature. The task's \
                 signature is `pub fn as_slice(&self) -> &[u8]`. Restore it.",
            ),
            (
                "private-alloc",
                ("pub fn map_by_hand", "pub(crate) fn map_by_hand"),
                &["function `map_by_hand` is private"],
                "map_by_hand is not public; the task's signature is `pub fn map_by_hand(len: usize) -> io::Result<*mut u8>`. \
                 Restore it.",
            ),
            (
                "private-alloc",
                (
                    "map_by_hand(len: usize) -> io::Result<",
                    "map_by_hand(len: usize) -> nix::Result<",
                ),
                &["mismatched types", "map_by_hand(LEN)"],
                "map_by_hand returns nix::Result<*mut u8>; the task's signature is \
                 `pub fn map_by_hand(len: usize) -> io::Result<*mut u8>`. Restore it.",
            ),
            (
                "private-alloc",
                ("pub fn new(len: usize)", "pub unsafe fn new(len: usize)"),
                &[
                    "call to unsafe function `Region::new` is unsafe and requires unsafe function or block",
                ],
                "Region::new is unsafe; the task's signature is `pub fn new(len: usize) -> io::Result<Region>`. Restore it.",
            ),
            (
                "private-alloc",
                ("pub unsafe fn unmap_by_hand", "pub fn unmap_by_hand"),
                &[
                    "unnecessary `unsafe` block",
                    "unsafe { unmap_by_hand(start, LEN) }",
                ],
                "unmap_by_hand is a safe function; the task's signature is \
                 `pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()>`. Restore it.",
            ),
            (
                "private-alloc",
                (
                    "as_slice<'a>(&self) -> &'a [u8]",
                    "as_slice(&'static self) -> &'static [u8]",
                ),
                &["`region` does not live long enough", "region.as_slice()"],
                "Region::as_slice has the signature `pub fn as_slice(&'static self) -> &'static [u8]`. With these lifetimes, \
                 correct code does not compile. Relax them.",
            ),
            (
                "private-alloc",
                (
                    "pub fn new(len: usize)",
                    "pub fn new<const N: usize>(len: usize)",
                ),
                &["type annotations needed", "Region::new(len)"],
                "Region::new has the generic parameters <const N: usize>; the task's signature is \
                 `pub fn new(len: usize) -> io::Result<Region>`. Restore it.",
            ),
            (
                "mutex-counter",
                (
                    "#[derive(Debug, Clone, Copy, PartialEq, Eq)]",
                    "#[derive(Clone, Copy)]",
                ),
                &["binary operation `==` cannot be applied to type `Entry`"],
                "Entry does not implement Debug, Eq and PartialEq; in the stub it does. Restore the implementation.",
            ),
            (
                "mutex-counter",
                ("OwnerDied,", "Died,"),
                &[
                    "no variant or associated item named `OwnerDied` found for enum `Entry` in the current scope",
                ],
                "Entry has no variant OwnerDied; the stub declares `OwnerDied`. Restore it.",
            ),
            (
                "mutex-counter",
                (
                    "f: impl FnOnce(&mut u64, Entry) -> R",
                    "f: fn(&mut u64, Entry) -> R",
                ),
                &["mismatched types", "counter.with_lock(|number, _| {"],
                "Counter::with_lock has a parameter of type fn(&mut u64, Entry) -> R; the task's signature is \
                 `pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R>`. Restore it.",
            ),
            (
                "threshold-alloc",
                ("pub const fn new(config", "pub fn new(config"),
                &["cannot call non-const associated function `ThresholdAlloc::new` in statics"],
                "ThresholdAlloc::new is not const; the task's signature is \
                 `pub const fn new(config: Config) -> ThresholdAlloc`. Restore it.",
            ),
            (
                "threshold-alloc",
                (
                    "    config: Config,\n}",
                    "    config: UnsafeCell<Config>,\n}",
                ),
                &[
                    "`UnsafeCell<Config>` cannot be shared between threads safely",
                    "within `threshold_alloc::ThresholdAlloc`, the trait `Sync` is not implemented for `UnsafeCell<Config>`",
                ],
                "ThresholdAlloc is not Sync, because it contains UnsafeCell<Config>; the grader needs a type that is Sync.",
            ),
            (
                "threshold-alloc",
                (
                    "pub struct Config {",
                    "#[non_exhaustive]\npub struct Config {",
                ),
                &[
                    "cannot create non-exhaustive struct using struct expression",
                    "ThresholdAlloc::new(Config {",
                ],
                "Config is #[non_exhaustive]; the stub declares `pub struct Config`. Restore it.",
            ),
            (
                "private-alloc",
                (
                    "pub fn map_by_hand",
                    "pub use by_hand as map_by_hands;\npub fn by_hand",
                ),
                &["unresolved import `private_alloc::map_by_hand`"],
                "Your answer has no function `map_by_hand`; by_hand has its signature. The task's signature is \
                 `pub fn map_by_hand(len: usize) -> io::Result<*mut u8>`. Restore it.",
            ),
            (
                "shared-ipc",
                ("type Target = T;", "type Target = NonNull<T>;"),
                &["no method named `store` found for struct `Shared<T>` in the current scope"],
                "Shared has `type Target = NonNull<T>`; the stub declares `type Target = T`. Restore it.",
            ),
            (
                "threshold-alloc",
                ("pub mapped_blocks: usize", "pub mapped_blocks: u32"),
                &["mismatched types", "stats.mapped_blocks"],
                "Stats.mapped_blocks has the type u32; the stub declares `pub mapped_blocks: usize`. Restore it.",
            ),
        ];
        for (exercise, change, errors, expected) in cases {
            assert_eq!(
                explained(exercise, *change, errors).as_deref(),
                Some(*expected),
                "{change:?}"
            );
        }
    }

    #[test]
    fn what_means_the_same_is_not_blamed() {
        let same = [
            (
                "private-alloc",
                "io::Result<Region>",
                "std::io::Result<Self>",
            ),
            (
                "private-alloc",
                "io::Result<Region>",
                "Result<Region, io::Error>",
            ),
            ("private-alloc", "len: usize", "size: usize"),
            ("private-alloc", "&mut self", "self: &mut Self"),
            ("private-alloc", "pub fn len(", "pub const fn len("),
            (
                "private-alloc",
                "as_slice<'a>(&self) -> &'a [u8]",
                "as_slice(&self) -> &[u8]",
            ),
            (
                "mutex-counter",
                "with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R)",
                "with_lock<R, F: FnOnce(&mut u64, Entry) -> R>(&self, f: F)",
            ),
            ("shared-ipc", "use std::io;", "use std::io::{self, Error};"),
            (
                "threshold-alloc",
                "use std::ops::Range;",
                "use core::ops::Range;",
            ),
        ];
        for (exercise, old, new) in same {
            let said = explained(
                exercise,
                (old, new),
                &["as_slice, new, len, with_lock, prefault, heap_range"],
            );
            assert_eq!(said, None, "{new}");
        }
    }

    /// All of these compile with the grader.
    #[test]
    fn a_right_answer_does_not_differ() {
        let root = root::find().expect("the tests run in a clone");
        for exercise in Exercise::all(&root).expect("exercises") {
            let stub = stub(&exercise.name);
            let stub = Interface::of([stub.as_str()]).expect("the stub is Rust");
            let right = fs::read_dir(exercise.answers().join("right")).expect("answers");
            let right = right.map(|entry| entry.expect("an answer").path());
            for path in right.chain([exercise.solution()]) {
                let answer = fs::read_to_string(&path).expect("an answer");
                let answer = Interface::of([answer.as_str()]).expect("an answer is Rust");
                let differences = Interface::differences(&stub, &answer);
                let strong: Vec<_> = differences.iter().filter(|one| !one.is_weak).collect();
                assert!(strong.is_empty(), "{}: {strong:?}", path.display());
            }
        }
    }

    #[test]
    fn a_difference_that_no_error_names_gives_way_to_one_that_is_named() {
        let stub = stub("private-alloc");
        let answer = stub.replace("as_slice<'a>(&self)", "as_slice<'a>(&mut self)");
        let answer = answer.replace("pub fn prefault(&mut self)", "pub fn prefault(self)");
        let interface = |text: &str| Interface::of([text]).expect("it is Rust");
        let (stub, answer) = (interface(&stub), interface(&answer));
        let said =
            explain(&stub, &answer, &[error("use of moved value: `prefault`")]).unwrap_or_default();
        assert!(said.starts_with("Region::prefault takes self;"), "{said}");
        assert!(!said.contains("as_slice"), "{said}");
    }

    #[test]
    fn a_path_is_left_out_of_a_type() {
        assert_eq!(
            without_paths("[std::sync::atomic::AtomicU64; 2]"),
            "[AtomicU64; 2]"
        );
        assert_eq!(without_paths("a::B<c::D>"), "B<D>");
        assert_eq!(without_paths("u8"), "u8");
    }
}
