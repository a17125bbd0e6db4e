//! The answer's source text, for what neither the kernel nor the compiler can tell a grader.

use std::path::Path;
use std::{env, fs};

/// Returns the public fields of the answer's struct `name`, by name or, in a tuple struct, by number. Safe code could
/// assign to them. There are none if the sources cannot be read.
///
/// Macros are not expanded, and only the first struct of that name is found.
pub fn public_fields(name: &str) -> Vec<String> {
    fields(&code(), name)
}

/// Returns the functions of the answer that return a `&mut T` of the struct `name`, also inside of another type, or pass
/// one to a closure. Only those count that safe code outside of the answer can call: public functions, and those of a trait.
/// They belong to the struct, or to a type that such a function of the struct returns, or are free functions that are passed
/// the struct. There are none if the sources cannot be read.
pub fn functions_that_lend_mut_t(name: &str) -> Vec<String> {
    lend_mut_t(&code(), name)
}

/// Returns the functions of the answer that return the bytes of the struct `name` as a `&[u8]`, or pass them to a closure.
/// Only those count that safe code can call, as in `functions_that_lend_mut_t`, and those without a bound that rules out
/// padding and atomics.
pub fn functions_that_lend_bytes(name: &str) -> Vec<String> {
    lend_bytes(&code(), name)
}

/// Returns the methods of the answer's struct `name` that borrow it and return a `&T` whose lifetime is another one. Only those
/// count that safe code can call.
pub fn functions_that_lend_for_too_long(name: &str) -> Vec<String> {
    lend_for_too_long(&code(), name)
}

/// Returns the methods of the answer's struct `name` that borrow it and write a `T` or bytes through a pointer, or copy the
/// value of another one. Only those count that safe code can call.
pub fn functions_that_overwrite(name: &str) -> Vec<String> {
    overwrite(&code(), name)
}

/// Returns the functions of the answer's struct `name` that safe code can call, also those of a trait, and that return a
/// reference to one of the types `to`, also inside of another type. There are none if the sources cannot be read.
pub fn functions_that_return_a_reference(name: &str, to: &[&str]) -> Vec<String> {
    return_a_reference(&code(), name, to)
}

/// Whether a struct of the answer has a field in whose type the type `name` occurs. False if the sources cannot be read.
pub fn has_a_field_with(name: &str) -> bool {
    field_with(&code(), name)
}

/// Returns the functions of the answer that make a value of the struct `name` from a pointer, and that safe code can call.
/// There are none if the sources cannot be read.
pub fn functions_that_trust_a_pointer(name: &str) -> Vec<String> {
    trust_a_pointer(&code(), name)
}

/// Returns the code of the answer that runs the destructor of a value behind a pointer: `drop_in_place`, or `drop` of what was
/// read from the pointer. `None` if the sources cannot be read.
pub fn drops_through_a_pointer() -> Option<String> {
    drop_through_a_pointer(&code())
}

/// Whether the answer has a `static mut`.
pub fn has_static_mut() -> bool {
    static_mut(&code())
}

/// Returns a static of the answer that several threads may change at the same time: its type has a cell and an `unsafe impl
/// Sync`, and the code has no atomic and no lock at all. `None` if the sources cannot be read.
pub fn unlocked_static() -> Option<String> {
    static_with_cell(&code())
}

/// The answer's code without comments and tests; empty if it cannot be read.
fn code() -> String {
    sources().map_or_else(String::new, |code| without_tests(&without_comments(&code)))
}

fn sources() -> Option<String> {
    let package = env::var_os("CARGO_MANIFEST_DIR")?;
    all_files(&Path::new(&package).join("src"))
}

/// Whether the answer has an `unsafe impl` of the trait `name` without a `SAFETY:` comment directly above it, as
/// `clippy::undocumented_unsafe_blocks` asks for. False if the sources cannot be read, and for code of a macro.
pub fn is_undocumented(name: &str) -> bool {
    sources().is_some_and(|code| undocumented(&code, name))
}

fn undocumented(code: &str, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(number, line)| {
        let is_impl = line.starts_with("unsafe impl") && line.contains(&format!("{name} for "));
        let above = lines[..number].iter().rev();
        let mut comment = above
            .filter(|line| !line.is_empty())
            .skip_while(|line| line.starts_with("#["))
            .take_while(|line| {
                line.starts_with("//") || line.starts_with("/*") || !line.ends_with(['{', '}', ';'])
            });
        is_impl && !comment.any(|line| line.to_uppercase().contains("SAFETY:"))
    })
}

/// The contents of all files below `folder`.
pub(super) fn all_files(folder: &Path) -> Option<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        match path.is_dir() {
            true => text += &all_files(&path)?,
            false => {
                text += &String::from_utf8_lossy(&fs::read(&path).ok()?);
                text.push('\n');
            }
        }
    }
    Some(text)
}

/// The code without comments. What follows `//` in a string is lost as well.
pub(super) fn without_comments(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("/*") {
        // A line comment may contain the beginning of a block comment.
        let line = rest[..start].rfind('\n').map_or(0, |end| end + 1);
        let (before, after) = rest.split_at(start);
        let end = match before[line..].contains("//") {
            true => after.find('\n'),
            false => after.find("*/").map(|end| end + 2),
        };
        kept += before;
        kept.push('\n');
        rest = end.map_or("", |end| &after[end..]);
    }
    kept += rest;
    let lines = kept
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The code without the items that are compiled for its own tests only.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let first = parts.next().unwrap_or("");
    parts.fold(first.to_owned(), |kept, part| kept + after_item(part))
}

/// What follows the first item.
fn after_item(code: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth <= 0 && matches!(letter, '}' | ';') {
            return &code[at + 1..];
        }
    }
    ""
}

/// Whether code without comments has a `static mut`, which is not a `&'static mut`.
fn static_mut(code: &str) -> bool {
    code.match_indices("static").any(|(at, keyword)| {
        let is_word = !code[..at].ends_with(|letter: char| letter == '\'' || is_part(letter));
        let rest = code[at + keyword.len()..].trim_start();
        let of = rest.strip_prefix("mut");
        let of = of.filter(|of| of.starts_with(char::is_whitespace));
        let name = of.and_then(|of| of.split_once(':'));
        is_word && name.is_some_and(|(name, _)| is_identifier(name))
    })
}

/// The first static in code without comments whose type has a cell and an `unsafe impl Sync`, if nothing in the code makes
/// threads wait for each other.
fn static_with_cell(code: &str) -> Option<String> {
    const CELLS: [&str; 4] = ["Cell", "UnsafeCell", "RefCell", "OnceCell"];
    /// Words, or beginnings of words, of code that synchronises threads.
    const SYNCHRONISED: [&str; 11] = [
        "Atomic",
        "Mutex",
        "RwLock",
        "Once",
        "LazyLock",
        "Condvar",
        "Barrier",
        "fence",
        "asm",
        "pthread_",
        "SYS_futex",
    ];
    let synchronises =
        |word: &str| word != "OnceCell" && SYNCHRONISED.iter().any(|known| word.starts_with(known));
    if code.split(|next| !is_part(next)).any(synchronises) {
        return None;
    }
    let is_cell = |name: &str| {
        let body = struct_body(code, name);
        body.is_some_and(|body| CELLS.iter().any(|cell| has_word(body, cell)))
    };
    let mut shared = code.match_indices("Sync for ").filter_map(|(at, keyword)| {
        let start = code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1);
        let name = code[at + keyword.len()..]
            .split(|next| !is_part(next))
            .next()?;
        (has_word(&code[start..at], "unsafe") && is_cell(name)).then_some(name)
    });
    shared.find_map(|of| {
        code.match_indices("static ").find_map(|(at, keyword)| {
            let (name, rest) = code[at + keyword.len()..].split_once(':')?;
            let kind = &rest[..rest.find(['=', ';'])?];
            let is_word = !code[..at].ends_with(|letter: char| letter == '\'' || is_part(letter));
            (is_word && is_identifier(name) && has_word(kind, of)).then(|| name.trim().to_owned())
        })
    })
}

/// The first code that drops what is behind a pointer.
fn drop_through_a_pointer(code: &str) -> Option<String> {
    let in_place = ["drop_in_place", "assume_init_drop"];
    if let Some(name) = in_place.into_iter().find(|name| has_word(code, name)) {
        return Some(name.to_owned());
    }
    let mut calls = code.match_indices("drop(").filter(|(at, _)| {
        let before = code[..*at].trim_end();
        !before.ends_with("fn") && !code[..*at].ends_with(is_part)
    });
    calls.find_map(|(at, _)| {
        let dropped = enclosed(&code[at..])?;
        // `read` with an argument may be that of a file.
        let reads = [
            ".read()",
            ".read_volatile()",
            "ptr::read(",
            "ptr::read_volatile(",
        ];
        let is_read = reads.iter().any(|read| dropped.contains(read));
        is_read.then(|| {
            format!(
                "drop({})",
                dropped.split_whitespace().collect::<Vec<_>>().join(" ")
            )
        })
    })
}

/// The public fields of the first struct `name` in code without comments.
fn fields(code: &str, name: &str) -> Vec<String> {
    let fields = struct_body(code, name).map_or_else(Vec::new, split);
    let public = fields.iter().enumerate().filter_map(|(number, field)| {
        let mut field = field.trim();
        while let Some(attribute) = field.strip_prefix('#') {
            field = attribute
                .split_once(']')
                .map_or("", |(_, rest)| rest)
                .trim();
        }
        // `pub(crate)` is not public.
        let field = field.strip_prefix("pub")?;
        let field = field.strip_prefix(char::is_whitespace)?;
        // A tuple struct may have a field of type `std::…`.
        let named = field
            .split_once(':')
            .filter(|(name, kind)| is_identifier(name) && !kind.starts_with(':'));
        Some(named.map_or_else(|| number.to_string(), |(name, _)| name.trim().to_owned()))
    });
    public.collect()
}

/// What is between the brackets of the first struct `name`.
fn struct_body<'a>(code: &'a str, name: &str) -> Option<&'a str> {
    code.match_indices("struct ").find_map(|(at, keyword)| {
        let rest = code[at + keyword.len()..].trim_start();
        let rest = rest.strip_prefix(name)?;
        let ends = rest.starts_with(|next: char| !next.is_alphanumeric() && next != '_');
        ends.then(|| enclosed(rest)).flatten()
    })
}

/// A function that safe code outside of the answer can call.
struct Function<'a> {
    name: &'a str,
    /// Its signature after the name.
    types: &'a str,
    /// The code before it.
    before: &'a str,
    body: &'a str,
}

impl Function<'_> {
    fn is_method_of(&self, name: &str) -> bool {
        impl_around(self.before).is_some_and(|head| self_type(head) == name)
    }

    /// Whether it is called with a `&self` or a `&mut self`.
    fn borrows_self(&self) -> bool {
        let arguments = self.types.split("->").next().unwrap_or("");
        arguments
            .match_indices('&')
            .any(|(at, _)| without_lifetime_and_mut(&arguments[at + 1..]).starts_with("self"))
    }
}

fn safe_and_public_functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    code.match_indices("fn ").filter_map(|(at, keyword)| {
        let before = &code[..at];
        if !is_safe_and_public(before) {
            return None;
        }
        let rest = &code[at + keyword.len()..];
        let signature = &rest[..rest.find(['{', ';'])?];
        let (name, types) = signature.split_once(['(', '<'])?;
        is_identifier(name).then(|| Function {
            name: name.trim(),
            types,
            before,
            body: enclosed(&rest[signature.len()..]).unwrap_or(""),
        })
    })
}

fn lend_mut_t(code: &str, of: &str) -> Vec<String> {
    lend(code, of, is_mut_t)
}

fn lend_bytes(code: &str, of: &str) -> Vec<String> {
    let has_bound = |text: &str| {
        ["IntoBytes", "Immutable"]
            .iter()
            .any(|it| has_word(text, it))
    };
    if has_bound(code) {
        // It may be that of the struct, or of a trait.
        return Vec::new();
    }
    lend(code, of, |rest| {
        without_lifetime_and_mut(rest).starts_with("[u8]")
    })
}

fn lend_for_too_long(code: &str, of: &str) -> Vec<String> {
    let is_free = |function: &Function, lifetime: &str| {
        let types = function
            .types
            .rsplit_once("->")
            .map_or("", |(types, _)| types);
        let (generics, arguments) = types.split_once('(').unwrap_or(("", types));
        let is_in = |text: &str| has_word(text, lifetime);
        lifetime == "static" || (is_in(generics) && !is_in(arguments))
    };
    let lends = |function: &Function| {
        let result = function
            .types
            .rsplit_once("->")
            .map_or("", |(_, result)| result);
        result.match_indices("&'").any(|(at, start)| {
            let rest = &result[at + start.len()..];
            let Some((lifetime, lent)) = rest.split_once(char::is_whitespace) else {
                return false;
            };
            is_t(lent) && is_free(function, lifetime)
        })
    };
    let functions = safe_and_public_functions(code);
    let functions = functions.filter(|it| it.is_method_of(of) && it.borrows_self() && lends(it));
    functions.map(|function| function.name.to_owned()).collect()
}

fn overwrite(code: &str, of: &str) -> Vec<String> {
    const COPIES: [&str; 10] = [
        "copy(",
        "copy_nonoverlapping(",
        "copy_from(",
        "copy_from_nonoverlapping(",
        "copy_to(",
        "copy_to_nonoverlapping(",
        "copy_from_slice(",
        "ptr::swap(",
        ".swap(",
        "swap_nonoverlapping(",
    ];
    let takes = |function: &Function, is: &dyn Fn(&str) -> bool| {
        let arguments = function.types.split("->").next().unwrap_or("");
        let mut starts = arguments.match_indices(": ");
        starts.any(|(at, colon)| is(&arguments[at + colon.len()..]))
    };
    let is_whole_t = |rest: &str| is_t(rest) && rest[1..].trim_start().starts_with([',', ')']);
    // A `&mut T` is where a copy goes.
    let is_source = |rest: &str| {
        let Some(referred) = rest.strip_prefix('&') else {
            return is_whole_t(rest);
        };
        let referred = without_lifetime(referred);
        is_t(referred)
            || referred.starts_with("[u8]")
            || ["Self", of].contains(&path_end(without_lifetime_and_mut(referred)))
    };
    let writes = |function: &Function| {
        let has = |calls: &[&str]| calls.iter().any(|call| function.body.contains(call));
        let writes_t = || {
            has(&["write(", "write_volatile(", "replace("])
                || assigns_through_a_pointer(function.body)
        };
        has(&["write_bytes("])
            || (takes(function, &is_whole_t) && writes_t())
            || (takes(function, &is_source) && has(&COPIES))
    };
    let functions = safe_and_public_functions(code);
    let functions = functions.filter(|it| it.is_method_of(of) && it.borrows_self() && writes(it));
    functions.map(|function| function.name.to_owned()).collect()
}

/// Whether the code has a statement `*pointer = value`.
fn assigns_through_a_pointer(code: &str) -> bool {
    code.match_indices(" = ").any(|(at, _)| {
        let start = code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1);
        code[start..at].trim_start().starts_with('*')
    })
}

/// The functions that return what follows a `&`, or pass it to a closure, and that safe code can call.
fn lend(code: &str, of: &str, is_lent: impl Fn(&str) -> bool) -> Vec<String> {
    let functions: Vec<Function> = safe_and_public_functions(code).collect();
    let results = functions.iter().filter_map(|function| {
        let is_method = self_type(impl_around(function.before)?) == of;
        is_method.then(|| function.types.rsplit_once("->"))?
    });
    let results: Vec<&str> = results.map(|(_, result)| result).collect();
    let is_reachable = |function: &&Function| match impl_around(function.before) {
        Some(head) => {
            let owner = self_type(head);
            owner == of || results.iter().any(|result| has_word(result, owner))
        }
        None => has_word(function.types, of),
    };
    let lends = |function: &&Function| {
        function.types.match_indices('&').any(|(at, _)| {
            let (before, rest) = function.types.split_at(at);
            let lent = before.contains("->") || before.contains("Fn");
            lent && is_lent(&rest[1..])
        })
    };
    let functions = functions.iter().filter(is_reachable).filter(lends);
    functions.map(|function| function.name.to_owned()).collect()
}

fn return_a_reference(code: &str, of: &str, to: &[&str]) -> Vec<String> {
    let returns = |function: &Function| {
        let result = function.types.rsplit_once("->");
        function.is_method_of(of) && result.is_some_and(|(_, result)| refers_to(result, to))
    };
    let functions = safe_and_public_functions(code).filter(returns);
    functions.map(|function| function.name.to_owned()).collect()
}

/// Whether a reference to one of these types occurs in the type.
fn refers_to(kind: &str, to: &[&str]) -> bool {
    kind.split('&').skip(1).any(|referred| {
        let first = without_lifetime_and_mut(referred).split_whitespace().next();
        to.contains(&path_end(first.unwrap_or_default()))
    })
}

fn field_with(code: &str, name: &str) -> bool {
    let mut structs = code.match_indices("struct ").filter_map(|(at, _)| {
        let is_word = !code[..at].ends_with(is_part);
        is_word.then(|| enclosed(&code[at..])).flatten()
    });
    structs.any(|fields| has_word(fields, name))
}

fn trust_a_pointer(code: &str, made: &str) -> Vec<String> {
    let trusts = |function: &Function| {
        let Some((arguments, result)) = function.types.rsplit_once("->") else {
            return false;
        };
        let of = impl_around(function.before).map_or("", self_type);
        let makes = has_word(result, made) || (has_word(result, "Self") && of == made);
        let is_passed = |pointer: &str| {
            // A closure may be passed a pointer by the function.
            let mut before = arguments
                .match_indices(pointer)
                .map(|(at, _)| &arguments[..at]);
            before.any(|before| {
                !before
                    .rsplit(',')
                    .next()
                    .is_some_and(|last| last.contains("Fn"))
            })
        };
        makes
            && !result.contains('&')
            && ["*mut ", "*const ", "NonNull<"].into_iter().any(is_passed)
    };
    let functions = safe_and_public_functions(code).filter(trusts);
    functions.map(|function| function.name.to_owned()).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|next| !is_part(next)).any(|part| part == word)
}

fn is_part(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Whether safe code outside of the answer can call the function whose `fn` follows this code.
fn is_safe_and_public(before: &str) -> bool {
    let start = before.rfind(['{', '}', ';', ']']).map_or(0, |end| end + 1);
    let mut words = before[start..].split_whitespace();
    match words.next() {
        Some("pub") => !words.any(|word| word == "unsafe"),
        None => is_in_public_trait_impl(before),
        Some(_) => false, // `unsafe`, `pub(crate)`, or a function pointer's type
    }
}

/// Whether the innermost block that this code leaves open is the implementation of a trait that is not declared private
/// in this code.
fn is_in_public_trait_impl(code: &str) -> bool {
    let head = impl_around(code).map(after_parameters);
    let name = head.and_then(|head| head.rsplit_once(" for "));
    name.is_some_and(|(name, _)| !is_private_trait(code, path_end(name)))
}

fn is_private_trait(code: &str, name: &str) -> bool {
    code.match_indices("trait ").any(|(at, keyword)| {
        let start = code[..at]
            .rfind(['{', '}', ';', ']'])
            .map_or(0, |end| end + 1);
        let is_public = code[start..at].split_whitespace().next() == Some("pub");
        !is_public && path_end(&code[at + keyword.len()..]) == name
    })
}

/// The name of the type that is implemented.
fn self_type(head: &str) -> &str {
    let head = after_parameters(head);
    path_end(head.rsplit(" for ").next().unwrap_or(head))
}

/// What follows `impl<…>`.
fn after_parameters(head: &str) -> &str {
    let rest = head
        .split_once("impl")
        .map_or("", |(_, rest)| rest)
        .trim_start();
    let mut depth = 0;
    let mut previous = ' ';
    for (at, letter) in rest.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if previous != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 { rest } else { &rest[at + 1..] };
        }
        previous = letter;
    }
    ""
}

/// The last name of the path at the start of this code.
fn path_end(code: &str) -> &str {
    let code = code.trim_start();
    let end = code.find(|letter| letter != ':' && !is_part(letter));
    let path = &code[..end.unwrap_or(code.len())];
    path.trim_end_matches(':')
        .rsplit("::")
        .next()
        .unwrap_or(path)
}

/// What precedes the innermost block that this code leaves open, if it is an implementation.
fn impl_around(code: &str) -> Option<&str> {
    let mut closed = 0;
    let (at, _) = code.rmatch_indices(['{', '}']).find(|(_, brace)| {
        closed += if *brace == "}" { 1 } else { -1 };
        closed < 0
    })?;
    let head = &code[..at];
    let start = head.rfind(['{', '}', ';']).map_or(0, |end| end + 1);
    Some(&head[start..]).filter(|head| head.contains("impl"))
}

/// Whether what follows a `&` is `mut T`, perhaps after a lifetime.
fn is_mut_t(rest: &str) -> bool {
    let of = without_lifetime(rest).strip_prefix("mut");
    of.is_some_and(|of| of.starts_with(char::is_whitespace) && is_t(of))
}

/// Whether the code begins with the type `T`.
fn is_t(code: &str) -> bool {
    ["T", "Self::Target"].iter().any(|name| {
        let rest = code.trim_start().strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(is_part))
    })
}

/// What follows a `&`, without a lifetime.
fn without_lifetime(rest: &str) -> &str {
    let rest = rest.trim_start();
    match rest.starts_with('\'') {
        true => rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start()),
        false => rest,
    }
}

/// What follows a `&`, without a lifetime and `mut`.
fn without_lifetime_and_mut(rest: &str) -> &str {
    let rest = without_lifetime(rest);
    let of = rest
        .strip_prefix("mut")
        .filter(|of| of.starts_with(char::is_whitespace));
    of.unwrap_or(rest).trim_start()
}

fn is_identifier(text: &str) -> bool {
    text.trim().chars().all(is_part)
}

/// What is between the first brace or parenthesis and the one that closes it.
fn enclosed(code: &str) -> Option<&str> {
    let start = code.find(['{', '(', ';'])?;
    let mut depth = 0;
    for (at, letter) in code[start..].char_indices() {
        match letter {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return code.get(start + 1..start + at);
        }
    }
    None
}

/// Splits at the commas that are not inside of brackets.
fn split(fields: &str) -> Vec<&str> {
    let mut depth = 0;
    fields
        .split(|letter: char| {
            match letter {
                '{' | '(' | '[' | '<' => depth += 1,
                '}' | ')' | ']' | '>' => depth -= 1,
                _ => {}
            }
            letter == ',' && depth == 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Vec<String> {
        fields(&without_comments(code), "Region")
    }

    #[test]
    fn finds_an_undocumented_impl() {
        for code in [
            "unsafe impl Send for Region {}",
            "// Sound.\nunsafe impl Send for Region {}",
            "// SAFETY: yes.\nunsafe impl Sync for Region {}\nunsafe impl Send for Region {}",
            "// SAFETY: of something else.\nfn f() {\n}\n\nunsafe impl<T: Send> Send for Region<T> {}",
        ] {
            assert!(undocumented(code, "Send"), "{code}");
        }
        for code in [
            "// SAFETY: yes.\nunsafe impl Send for Region {}",
            "// SAFETY: it is;\n// as somebody says;\n\n#[cfg(all())]\nunsafe impl<T: Send> Send for Region<T> {}",
            "/* Safety:\n * yes.\n */\n    unsafe impl Send for Region {}",
            "/* SAFETY: yes;\n   no. */\nunsafe impl Send for Region {}",
            "unsafe impl Sync for Region {}",
            "// unsafe impl Send for Region {}",
        ] {
            assert!(!undocumented(code, "Send"), "{code}");
        }
    }

    #[test]
    fn finds_public_fields() {
        let named = "struct Regions { pub a: u8 }\npub struct Region<T: Copy> {\n    /// pub x: u8,\n    start: (T, u8),\n    \
                     #[allow(unused)]\n    pub len: usize,\n    pub\n    more: Map<u8, u8>,\n}";
        assert_eq!(of(named), ["len", "more"]);
        assert_eq!(of("pub struct Region(pub *mut u8, usize);"), ["0"]);
        assert_eq!(
            of("struct Region(u8, pub std::num::NonZero<usize>);"),
            ["1"]
        );
    }

    #[test]
    fn finds_functions_that_lend_mut_t() {
        for (code, name) in [
            (
                "impl<T> Shared<T> { pub fn get_mut(&mut self) -> &mut T { todo!() } }",
                "get_mut",
            ),
            (
                "impl<T> AsMut<T> for Shared<T> {\n    type A = B;\n    fn as_mut(&mut self) -> &mut T {}\n}",
                "as_mut",
            ),
            (
                "impl<T: Fn() -> u8> Shared<T>\nwhere T: Sync {\n    #[inline]\n    pub const fn a<'a>(&'a mut self) -> Option<&'a mut T>\nwhere T: Sync {} }",
                "a",
            ),
            (
                "impl<T> Shared<T> { fn f() {} pub fn with(&self, f: impl FnOnce(&mut T)) {} }",
                "with",
            ),
            (
                "impl<T> ops::DerefMut for crate::Shared<T> { fn f() { {} }\n    #[inline]\n    fn deref_mut(&mut self) -> &mut Self::Target {} }",
                "deref_mut",
            ),
            (
                "impl<T> Shared<T> { pub fn write(&self) -> Guard<'_, T> {} }\nimpl<T> DerefMut for Guard<'_, T> { fn deref_mut(&mut self) -> &mut T {} }",
                "deref_mut",
            ),
            (
                "pub trait Lends<T> { fn lend(&mut self) -> &mut T; }\nimpl<T> Lends<T> for Shared<T> { fn lend(&mut self) -> &mut T {} }",
                "lend",
            ),
            ("pub fn of<T>(shared: &Shared<T>) -> &mut T {}", "of"),
        ] {
            assert_eq!(
                lend_mut_t(&without_comments(code), "Shared"),
                [name],
                "{code}"
            );
        }
        for code in [
            "impl<T> Shared<T> { pub fn deref(&self) -> &T { let f: &mut T = g(); } }",
            "impl<T> Shared<T> { pub fn header(&self) -> &mut Thing {} }",
            "impl<T> Shared<T> { pub fn get(&mut self) -> *mut T {} } // pub fn f() -> &mut T {}",
            "impl<T> Shared<T> { fn private(&mut self) -> &mut T {} }",
            "impl<T> Shared<T> { pub(crate) fn of_the_crate(&mut self) -> &mut T {} }",
            "impl<T> Shared<T> { fn in_child(&self, f: impl FnOnce(&mut T)) {} }",
            "impl<T> Shared<T> { pub unsafe fn get_unchecked_mut(&self) -> &mut T {} }",
            "impl<T> Drop for Shared<T> { fn drop(&mut self) { fn at<T>(start: *mut T) -> &'static mut T {} } }",
            "pub fn zero<T>(value: &mut T) -> &mut T {}",
            "struct Mapping<T>(NonNull<T>);\nimpl<T> Mapping<T> { pub fn value(&mut self) -> &mut T {} }",
            "impl<T> Shared<T> { pub fn new() -> io::Result<Shared<T>> {} }\nimpl<T> DerefMut for Mapping<T> { fn deref_mut(&mut self) -> &mut T {} }",
            "trait Lends<T> { fn lend(&mut self) -> &mut T; }\nimpl<T> Lends<T> for Shared<T> { fn lend(&mut self) -> &mut T {} }",
        ] {
            assert_eq!(
                lend_mut_t(&without_comments(code), "Shared"),
                [""; 0],
                "{code}"
            );
        }
    }

    #[test]
    fn finds_functions_that_lend_bytes() {
        for (code, name) in [
            (
                "impl<T> Shared<T> { pub fn as_bytes(&self) -> &[u8] {} }",
                "as_bytes",
            ),
            (
                "impl<T> AsRef<[u8]> for Shared<T> {\n    fn as_ref(&self) -> &[u8] {} }",
                "as_ref",
            ),
            (
                "impl<T> Shared<T> { pub fn a<'a>(&'a mut self) -> Option<&'a mut [u8]> {} }",
                "a",
            ),
            (
                "impl<T> Shared<T> { pub fn with(&self, f: impl FnOnce(&[u8])) {} }",
                "with",
            ),
        ] {
            assert_eq!(lend_bytes(code, "Shared"), [name], "{code}");
        }
        for code in [
            "impl<T> Shared<T> { fn as_bytes(&self) -> &[u8] {} }",
            "impl<T> Shared<T> { pub fn set(&self, bytes: &[u8]) {} }",
            "impl<T> Shared<T> { pub fn atomics(&self) -> &[AtomicU8] {} }",
            "impl<T> Shared<T> { pub fn as_bytes(&self) -> &[u8] where T: IntoBytes + Immutable {} }",
            "impl Other { pub fn as_bytes(&self) -> &[u8] {} }",
        ] {
            assert_eq!(lend_bytes(code, "Shared"), [""; 0], "{code}");
        }
    }

    #[test]
    fn finds_functions_that_lend_for_too_long() {
        for (code, name) in [
            (
                "impl<T> Shared<T> { pub fn get(&self) -> &'static T {} }",
                "get",
            ),
            (
                "impl<T> Shared<T> { pub fn get<'a>(& self) -> Option<&'a T> {} }",
                "get",
            ),
        ] {
            assert_eq!(lend_for_too_long(code, "Shared"), [name], "{code}");
        }
        for code in [
            "impl<T> Shared<T> { pub fn name(&self) -> &'static str {} }",
            "impl<T> Shared<T> { pub fn get<'a>(&'a self) -> &'a T {} }",
            "impl<T> Shared<T> { pub fn leak(self) -> &'static T {} }",
            "impl<T> Shared<T> { pub fn leak<'a>(self) -> &'a T {} }",
            "impl<T> Shared<T> { pub unsafe fn get(&self) -> &'static T {} }",
            "impl<T> Deref for Shared<T> { fn deref(&self) -> &T {} }",
        ] {
            assert_eq!(lend_for_too_long(code, "Shared"), [""; 0], "{code}");
        }
    }

    #[test]
    fn finds_functions_that_overwrite() {
        for (code, name) in [
            (
                "impl<T> Shared<T> { pub fn replace(&mut self, value: T) -> T { unsafe { self.value.replace(value) } } }",
                "replace",
            ),
            (
                "impl<T> Shared<T> { pub fn set(&self, value: T) { unsafe { self.value.as_ptr().write(value) } } }",
                "set",
            ),
            (
                "impl<T> Shared<T> { pub fn clear(&mut self) { unsafe { self.value.write_bytes(0, 1) } } }",
                "clear",
            ),
            (
                "impl<T> Shared<T> { pub fn set(&mut self, value: T) { unsafe { *self.value.as_ptr() = value } } }",
                "set",
            ),
            (
                "impl<T> Shared<T> { pub fn swap(&self, other: &Shared<T>) { unsafe { ptr::swap(self.value, other.value) } } }",
                "swap",
            ),
            (
                "impl<T> Shared<T> { pub fn set<'a>(&self, value: &'a T) { unsafe { ptr::copy_nonoverlapping(value, self.at(), 1) } } }",
                "set",
            ),
            (
                "impl<T> io::Write for Shared<T> { fn write(&mut self, bytes: &[u8]) -> io::Result<usize> { self.all().copy_from_slice(bytes) } }",
                "write",
            ),
        ] {
            assert_eq!(overwrite(code, "Shared"), [name], "{code}");
        }
        for code in [
            "impl<T> Shared<T> { pub fn with(value: T) -> io::Result<Self> { unsafe { start.write(value) } } }",
            "impl<T> Shared<T> { pub fn is(&self, value: T) -> bool { value == 1 } }",
            "impl<T> Shared<T> { pub fn note(&self, value: &T) { file.write(value) } }",
            "impl<T> Shared<T> { pub unsafe fn set(&self, value: T) { self.value.write(value) } }",
            "impl<T> Shared<T> { fn set(&self, value: T) { self.value.write(value) } }",
            "impl<T> Shared<T> { pub fn swap(&mut self, other: &mut Self) { mem::swap(self, other) } }",
            "impl<T> Shared<T> { pub fn read_to(&self, copy: &mut T) { self.value.copy_to(copy, 1) } }",
            "impl<T> Shared<T> { pub fn is(&self, value: T) -> bool { let other = value; *other == 1 } }",
        ] {
            assert_eq!(overwrite(code, "Shared"), [""; 0], "{code}");
        }
    }

    #[test]
    fn finds_functions_that_return_a_reference() {
        let to = ["u64", "AtomicU64", "Self::Target", "Target"];
        for (code, name) in [
            ("impl Counter { pub fn number(&self) -> &u64 {} }", "number"),
            (
                "impl Counter { pub fn number(&mut self) -> Option<&'static mut u64> {} }",
                "number",
            ),
            (
                "impl Counter { pub fn number(&self) -> &std::sync::atomic::AtomicU64 {} }",
                "number",
            ),
            (
                "impl Deref for Counter { type Target = u64;\n fn deref(&self) -> &Self::Target {} }",
                "deref",
            ),
        ] {
            let code = without_comments(code);
            assert_eq!(return_a_reference(&code, "Counter", &to), [name], "{code}");
        }
        for code in [
            "impl Counter { pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64) -> R) -> io::Result<R> {} }",
            "impl Counter { fn shared(&self) -> &u64 {} pub fn name(&self) -> &str {} pub fn get(&self) -> u64 {} }",
            "impl Deref for Guard<'_> { fn deref(&self) -> &u64 {} }",
            "impl Counter { pub unsafe fn number(&self) -> &u64 {} }",
        ] {
            let code = without_comments(code);
            assert_eq!(return_a_reference(&code, "Counter", &to), [""; 0], "{code}");
        }
    }

    #[test]
    fn finds_fields_with_a_type() {
        for code in [
            "struct Counter { mapping: Rc<Mapping> }",
            "struct A;\nstruct B(u8, Option<std::rc::Rc<u8>>);",
        ] {
            assert!(field_with(code, "Rc"), "{code}");
        }
        for code in [
            "struct Counter { mapping: Arc<Mapping> } fn f(a: Rc<u8>) {}",
            "struct A; fn f() { Rc::new(1); }",
            "use std::rc::Rc; enum A { B(u8) }",
        ] {
            assert!(!field_with(code, "Rc"), "{code}");
        }
    }

    #[test]
    fn finds_what_is_dropped_through_a_pointer() {
        for (code, found) in [
            (
                "fn drop(&mut self) { unsafe { self.value.drop_in_place() } }",
                "drop_in_place",
            ),
            (
                "unsafe { ptr::drop_in_place(self.value.as_ptr()) };",
                "drop_in_place",
            ),
            (
                "drop(unsafe { self.value.read() });",
                "drop(unsafe { self.value.read() })",
            ),
            (
                "{ mem::drop(ptr::read(self.value))",
                "drop(ptr::read(self.value))",
            ),
        ] {
            assert_eq!(
                drop_through_a_pointer(code).as_deref(),
                Some(found),
                "{code}"
            );
        }
        for code in [
            "fn drop(&mut self) { let number = self.value.read(); drop(mapping); }",
            "fn f() { drop(file.read(&mut buffer)); self.backdrop(number.read()); }",
            "drop(",
        ] {
            assert_eq!(drop_through_a_pointer(code), None, "{code}");
        }
    }

    #[test]
    fn finds_a_static_mut() {
        for code in [
            "static mut SIZE: usize = 0;",
            "fn f() {\n    static  mut\n    SIZE: T = 0;\n}",
        ] {
            assert!(static_mut(code), "{code}");
        }
        for code in [
            "fn f() -> &'static mut [u8] {}",
            "fn f(g: fn(&'static mut T)) {}",
            "static mutexes: Mutexes = 0;",
            "const ADVICE: &str = \"use no static mut\"; const A: u8 = 0;",
            "let non_static mut_: u8;",
        ] {
            assert!(!static_mut(code), "{code}");
        }
    }

    #[test]
    fn finds_an_unlocked_static() {
        for code in [
            "static SIZE: Shared = Shared(UnsafeCell::new(0));\nstruct Shared(UnsafeCell<usize>);\nunsafe impl Sync for Shared {}",
            "struct Shared<T> {\n    value: cell::Cell<T>,\n}\nunsafe impl<T> Sync for Shared<T> {}\nfn f() {\n    static SIZE: super::Shared<usize> = new();\n}",
        ] {
            assert_eq!(static_with_cell(code).as_deref(), Some("SIZE"), "{code}");
        }
        for code in [
            "static SIZE: Shared = Shared(UnsafeCell::new(0), AtomicBool::new(false));\nstruct Shared(UnsafeCell<usize>, AtomicBool);\nunsafe impl Sync for Shared {}",
            "struct Region(Cell<usize>);\nunsafe impl Sync for Region {}\nfn f(region: &'static Region) {}",
            "struct Shared(*const u8);\nunsafe impl Sync for Shared {}\nstatic SIZE: Shared = new();",
            "struct Shared(Cell<u8>);\nunsafe impl Sync for Shared {}\nthread_local! { static SIZE: Cell<u8> = new(); }",
        ] {
            assert_eq!(static_with_cell(code), None, "{code}");
        }
    }

    #[test]
    fn leaves_out_tests() {
        let code = "mod a {}\n#[cfg(test)]\nuse a::b;\nfn c() {}\n#[cfg(test)]\nmod tests {\n    fn d() { {} }\n    static mut E: u8 = 0;\n}\nfn f() {}";
        assert_eq!(without_tests(code), "mod a {}\n\nfn c() {}\n\nfn f() {}");
    }

    #[test]
    fn finds_functions_that_trust_a_pointer() {
        for (code, name) in [
            (
                "impl<T> Shared<T> { pub fn from_raw(value: NonNull<T>) -> Shared<T> { Shared { value } } }",
                "from_raw",
            ),
            (
                "impl<T: Sync> Shared<T> {\n    pub const fn at(start: *mut T) -> io::Result<Self> {} }",
                "at",
            ),
            (
                "impl<T> From<NonNull<T>> for Shared<T> { fn from(value: NonNull<T>) -> Self {} }",
                "from",
            ),
        ] {
            assert_eq!(trust_a_pointer(code, "Shared"), [name], "{code}");
        }
        for code in [
            "impl<T> Shared<T> { pub fn new() -> io::Result<Shared<T>> { from(start as *mut T) } }",
            "impl<T> Shared<T> { pub unsafe fn from_raw(value: NonNull<T>) -> Shared<T> {} }",
            "impl<T> Shared<T> { fn from_raw(value: NonNull<T>) -> Shared<T> {} }",
            "impl<T> Shared<T> { pub fn into_raw(self) -> NonNull<T> {} }",
            "impl<T> Shared<T> { pub fn contains(&self, start: *const u8) -> bool {} }",
            "impl From<*mut u8> for SharedMapping { fn from(start: *mut u8) -> Self {} }",
            "impl<T> From<Shared<T>> for Raw { fn from(value: Shared<T>) -> Self {} }",
            "impl<T> Shared<T> { pub fn with(init: impl FnOnce(*mut T)) -> io::Result<Self> {} }",
            "impl<T> Shared<T> { pub fn at(list: &[Self], start: *const T) -> Option<&Self> {} }",
            "trait Make<T> { fn make(at: *mut T) -> Self; }\nimpl<T> Make<T> for Shared<T> { fn make(at: *mut T) -> Self {} }",
        ] {
            assert_eq!(trust_a_pointer(code, "Shared"), [""; 0], "{code}");
        }
    }

    #[test]
    fn finds_nothing_where_all_is_private() {
        for code in [
            "pub struct Region {\n    start: *mut u8, // pub\n    pub(crate) len: usize,\n    pub_len: usize,\n}",
            "pub struct Region(*mut u8, pub(super) usize);\nimpl Region { pub fn len(&self) -> usize { 1 } }",
            "pub struct Region;\nimpl Region { pub fn len(&self) -> usize { 1 } }",
            "pub struct Other { pub len: usize }",
            "struct Region<'a, T> where T: Fn(u8) -> u8 { len: &'a T }",
            "struct Region {",
            "",
        ] {
            assert_eq!(of(code), [""; 0], "{code}");
        }
    }
}
