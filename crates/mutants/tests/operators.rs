//! The mutants of small pieces of code.

/// Returns the changed code of each mutant, without the function around it.
fn changed(signature: &str, body: &str) -> Vec<String> {
    let source = format!("{signature} {{ {body} }}");
    let mutants = mutants::of(&source).expect("the code is valid");
    let changed = mutants.into_iter().map(|mutant| {
        let mut source = source.clone();
        source.replace_range(mutant.range, &mutant.text);
        let body = &source[signature.len() + " {".len()..source.len() - "}".len()];
        body.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    changed.collect()
}

/// Returns the descriptions of the mutants.
fn changes(source: &str) -> Vec<String> {
    let mutants = mutants::of(source).expect("the code is valid");
    let changes = mutants.into_iter();
    changes
        .map(|mutant| format!("{}: {}", mutant.function, mutant.change))
        .collect()
}

#[test]
fn bodies_become_values_of_their_type() {
    let body = |returned: &str| changed(&format!("fn f() -> {returned}"), "x");
    assert_eq!(body("bool"), ["true", "false"]);
    assert_eq!(body("usize"), ["0", "1"]);
    assert_eq!(body("*mut u8"), ["std::ptr::null_mut()"]);
    assert_eq!(body("io::Result<()>"), ["Ok(())"]);
    assert_eq!(body("Option<bool>"), ["None", "Some(true)", "Some(false)"]);
    assert_eq!(body("Region"), Vec::<String>::new());
}

#[test]
fn statements_are_deleted_and_swapped() {
    assert_eq!(
        changed("fn f()", "a(); b();"),
        ["", "b();", "b(); a();", "a();"]
    );
    // Neither compiles.
    assert_eq!(
        changed("fn f(n: T) -> T", "let x = n; x"),
        Vec::<String>::new()
    );
    assert_eq!(
        changed("fn f(n: T) -> T", "let x = a(); b(x); x"),
        ["let x = a(); x"]
    );
    // The only statement of a branch is deleted with it.
    assert_eq!(
        changed("fn f()", "if x.is_null() { return; } a()"),
        ["", "a()", "if true { return; } a()"]
    );
}

#[test]
fn errors_are_ignored_or_panic() {
    assert_eq!(
        changed("fn f() -> T", "check(a)?; x"),
        ["x", "let _ = check(a); x", "check(a).unwrap(); x"]
    );
}

#[test]
fn operators_have_replacements() {
    let only = |body: &str| changed("fn f() -> T", body);
    assert_eq!(only("a >= b"), ["a > b", "a < b"]);
    assert_eq!(only("a && b"), ["a || b"]);
    assert_eq!(only("!a"), ["a"]);
    assert_eq!(only("a | b"), ["a & b"]);
}

#[test]
fn flags_are_deleted_one_by_one() {
    assert_eq!(
        changed("fn f() -> T", "libc::A | libc::B | libc::C"),
        [
            "libc::B | libc::C",
            "libc::A | libc::C",
            "libc::A | libc::B"
        ]
    );
    assert_eq!(
        changed("fn f() -> T", "libc::MAP_PRIVATE | libc::A"),
        ["libc::A", "libc::MAP_PRIVATE", "libc::MAP_SHARED | libc::A"]
    );
}

#[test]
fn error_codes_are_replaced_in_patterns_too() {
    assert_eq!(
        changed("fn f() -> T", "match x { Err(Errno::EINTR) => a, y => b }"),
        [
            "match x { y => b }",
            "match x { Err(Errno::EAGAIN) => a, y => b }"
        ]
    );
}

#[test]
fn lengths_change_by_a_byte_and_by_a_page() {
    assert_eq!(
        changed("fn f() -> T", "munmap(start, self.len)"),
        [
            "munmap(start, self.len + 1)",
            "munmap(start, self.len - 1)",
            "munmap(start, self.len + (1 << 16))"
        ]
    );
}

#[test]
fn roundings_are_deleted() {
    assert_eq!(changed("fn f() -> T", "x.next_multiple_of(PAGE)"), ["x"]);
    let source = "fn whole_pages(n: usize) -> usize { n } fn f() -> T { whole_pages(x) }";
    assert!(changes(source).contains(&"f: replace `whole_pages(x)` by `(x)`".to_owned()));
}

#[test]
fn a_process_ends_in_another_way() {
    assert_eq!(
        changed("fn f() -> !", "unsafe { libc::_exit(status) }"),
        ["unsafe { panic!() }", "unsafe { libc::exit(status) }"]
    );
}

#[test]
fn the_path_of_a_mutant_names_modules_and_types() {
    let source = "mod merge { impl Heap { fn trim(&self) -> bool { X } } }";
    assert_eq!(
        changes(source),
        [
            "merge::Heap::trim: replace the body by `true`",
            "merge::Heap::trim: replace the body by `false`"
        ]
    );
}

#[test]
fn equal_changes_of_a_function_are_numbered() {
    let source = "fn f() -> T { (a && b, a && b) }";
    assert_eq!(
        changes(source),
        [
            "f: replace `&&` by `||` in `a && b`",
            "f: replace `&&` by `||` in `a && b`, place 2"
        ]
    );
}

#[test]
fn comments_are_not_quoted() {
    let source = "fn f() -> T {\n    // SAFETY: a reason.\n    a // more\n        && b\n}";
    assert_eq!(changes(source), ["f: replace `&&` by `||` in `a && b`"]);
}
