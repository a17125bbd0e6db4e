//! `workbook class`: grades a class, and no attack of an answer raises its score. Not part of `cargo test`:
//! `cargo test --test class` needs bubblewrap, and takes some minutes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use course::exercise::Exercise;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use workbook::class::result::{Outcome, Status};

const WORKBOOK: &str = env!("CARGO_BIN_EXE_workbook");
const EXERCISE: &str = "private-alloc";

fn root() -> PathBuf {
    course::root::find().expect("the tests run in a clone")
}

fn exercise() -> Exercise {
    Exercise::find(&root(), EXERCISE).expect("an exercise")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder of what all submissions need.
fn prepared() -> PathBuf {
    root().join(".workbook/class").join(EXERCISE)
}

/// The program that a submission becomes.
fn program() -> PathBuf {
    let built: serde_json::Value =
        serde_json::from_str(&read(prepared().join("built.json"))).expect("JSON");
    built["program"].as_str().expect("a path").into()
}

/// A library in the folder.
fn library(name: &str, folder: &Path) -> PathBuf {
    let folder = fs::read_dir(folder).expect("a folder");
    let mut paths = folder.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
    };
    paths.find(is_it).expect("the library")
}

fn stub() -> String {
    read(exercise().stub())
}

fn solution() -> String {
    read(exercise().solution())
}

/// The code of an attack, without the comment at its beginning.
fn attack(name: &str) -> String {
    let text = read(root().join("tests/class").join(name).with_extension("rs"));
    let lines = text.lines().filter(|line| !line.starts_with("//!"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The solution with a mistake: some cases fail.
fn mistaken() -> String {
    let solution = solution();
    let mistaken = solution.replace("PROT_READ | ProtFlags::PROT_WRITE", "PROT_READ");
    assert_ne!(mistaken, solution);
    mistaken
}

fn workbook(arguments: &[&str]) -> Command {
    let mut command = Command::new(WORKBOOK);
    command
        .arg("class")
        .args(arguments)
        .current_dir(root())
        .env_remove("JUDGE_NO_PTRACE");
    command
}

/// A folder of submissions and one of results.
struct Class {
    folder: TempDir,
}

impl Class {
    fn new() -> Class {
        Class {
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join("answers").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        path
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a submission");
    }

    fn result(&self, results: &str, student: &str) -> PathBuf {
        let folder = self.folder.path().join(results);
        folder.join(format!("{student}.json"))
    }

    fn grade_command(&self, results: &str, jobs: usize) -> Command {
        let mut command = workbook(&["grade", "--exercise", EXERCISE]);
        command
            .arg(self.folder.path().join("answers"))
            .arg("--results")
            .arg(self.folder.path().join(results))
            .args(["--jobs", &jobs.to_string()]);
        command
    }

    /// Grades the class, and returns the table.
    fn grade(&self, results: &str, jobs: usize) -> String {
        let output = self.grade_command(results, jobs).output();
        let Output { stderr, .. } = output.expect("the command starts");
        let table = self.folder.path().join(results).join("results.csv");
        fs::read_to_string(table).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)))
    }

    /// Grades one submission.
    fn one(&self, name: &str) -> Outcome {
        self.one_with(name, |_| {})
    }

    fn one_with(&self, name: &str, change: impl FnOnce(&mut Command)) -> Outcome {
        let result = self.result("one", name);
        let mut command = workbook(&["one", "--exercise", EXERCISE]);
        command.arg(self.path(name)).arg(&result);
        change(&mut command);
        let Output { stderr, .. } = command.output().expect("the command starts");
        Outcome::read(&result).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&stderr)))
    }
}

fn points(outcome: &Outcome) -> f64 {
    outcome.score.as_ref().map_or(0.0, |score| score.points)
}

/// Grades `text` alone.
fn grade(text: &str) -> Outcome {
    let class = Class::new();
    class.write("student.rs", text);
    class.one("student.rs")
}

/// Fails unless the submission earns nothing and its note has this text.
fn expect_rejected(outcome: &Outcome, note: &str) {
    assert_eq!(outcome.status, Status::Rejected, "{outcome:#?}");
    assert_eq!(points(outcome), 0.0);
    assert!(outcome.note.contains(note), "{}", outcome.note);
}

#[test]
fn a_class_is_graded_the_same_way_by_one_job_and_by_two() {
    let class = Class::new();
    class.write("right.rs", &solution());
    class.write("folder/src/lib.rs", &solution());
    class.write("mistaken.rs", &mistaken());
    class.write("stub.rs", &stub());
    class.write("broken.rs", "fn missing( {\n");
    class.write("=1+1.rs", "struct Other;\n");
    let table = class.grade("first", 1);
    assert_eq!(table, class.grade("second", 2));
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.split_once(','))
        .collect();
    assert_eq!(rows["right"], "private-alloc,80,80,0,0,graded,");
    assert_eq!(rows["folder"], rows["right"]);
    assert_eq!(rows["stub"], "private-alloc,0,80,0,0,graded,");
    assert!(rows["broken"].contains(",0,80,0,0,rejected,"), "{table}");
    assert!(rows["\"'=1+1\""].contains("public items differ"), "{table}");
    let mistaken = Outcome::read(&class.result("first", "mistaken")).expect("a result");
    assert!((1.0..79.0).contains(&points(&mistaken)), "{table}");

    // A submission that is already graded is not graded again.
    let file = class.result("first", "right");
    let before = fs::metadata(&file).expect("a result").ino();
    class.write("stub.rs", &solution());
    let output = class.grade_command("first", 2).output();
    let lines = String::from_utf8(output.expect("it starts").stdout).expect("text");
    assert!(
        lines.contains("right: 80 of 80 points, graded before\n"),
        "{lines}"
    );
    assert!(lines.contains("stub: 80 of 80 points\n"), "{lines}");
    let table = class.grade("first", 2);
    assert_eq!(fs::metadata(&file).expect("a result").ino(), before);
    assert!(table.contains("stub,private-alloc,80,80"), "{table}");
}

#[test]
fn a_grading_that_was_killed_goes_on_where_it_was() {
    let class = Class::new();
    for student in 0..5 {
        let text = format!("{}\n// {student}\n", solution());
        class.write(&format!("s{student}.rs"), &text);
    }
    let begin = |results| -> Child {
        let mut command = class.grade_command(results, 1);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the command starts")
    };
    let finished = || -> Vec<(PathBuf, u64)> {
        let files = (0..5).map(|student| class.result("killed", &format!("s{student}")));
        let files = files.filter_map(|file| Some((file.clone(), fs::metadata(&file).ok()?.ino())));
        files.collect()
    };
    let mut kept = Vec::new();
    // Once in the middle of the first submission after each result.
    for count in 1..=2 {
        let mut child = begin("killed");
        let deadline = Instant::now() + Duration::from_secs(300);
        while finished().len() < count {
            assert!(Instant::now() < deadline, "no result");
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(700));
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        kept = finished();
    }
    let table = class.grade("killed", 2);
    for (file, number) in kept {
        // The same file: it was not written again.
        assert_eq!(fs::metadata(&file).expect("a result").ino(), number);
        assert_eq!(
            Outcome::read(&file).expect("a result").status,
            Status::Graded
        );
    }
    assert_eq!(table.matches(",80,80,0,0,graded,").count(), 5, "{table}");
}

#[test]
fn a_wrong_path_is_an_error_of_the_command() {
    let class = Class::new();
    class.write("student.rs", &stub());
    let answers = class.folder.path().join("answers");
    let result = class.result("results", "other");
    let expect = |command: &mut Command, message: &str| {
        let Output { status, stderr, .. } = command.output().expect("it starts");
        let errors = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains(message), "{errors}");
    };
    let mut one = workbook(&["one", "--exercise", EXERCISE]);
    one.arg(answers.join("other.rs")).arg(&result);
    expect(&mut one, "other.rs cannot be read");
    assert!(!result.exists());
    let controls = answers.join(OsStr::from_bytes(b"\x1b[31m\xff.rs"));
    fs::write(&controls, stub()).expect("a file");
    let mut one = workbook(&["one", "--exercise", EXERCISE]);
    one.arg(&controls).arg(&result);
    expect(&mut one, r"\u{1b}[31m");
    fs::remove_file(controls).expect("a file");
    class.write("folder/lib.rs", &stub());
    for (submission, result) in [
        ("student.rs", "student.rs"),
        ("student.rs", "folder/../student.rs"),
        ("folder", "folder/lib.rs"),
        ("folder/../folder", "folder/lib.rs"),
    ] {
        let mut one = workbook(&["one", "--exercise", EXERCISE]);
        one.args([submission, result].map(|name| answers.join(name)));
        expect(&mut one, "is the submission or a part of it");
        assert_eq!(read(answers.join(result)), stub());
    }
    fs::remove_dir_all(answers.join("folder")).expect("a folder");
    for results in ["answers", "answers/results", "answers/../answers/a/b"] {
        let message = "name another folder for the results";
        expect(&mut class.grade_command(results, 1), message);
    }
    let read_dir = fs::read_dir(&answers).expect("a folder");
    assert_eq!(read_dir.count(), 1, "no result is among the submissions");
    let file = "answers-file";
    fs::write(class.folder.path().join(file), "").expect("a file");
    expect(&mut class.grade_command(file, 1), "cannot be written");
    let mut unknown = workbook(&["grade", "--exercise", "private-ipc"]);
    expect(unknown.arg(&answers), "there is no exercise private-ipc");
    assert!(!class.folder.path().join("answers-results").exists());
    let mut questions = workbook(&["questions"]);
    expect(questions.arg(&result), "other.json cannot be read");
    let mut questions = workbook(&["questions"]);
    let no_result = questions.arg(answers.join("student.rs"));
    expect(no_result, "is not a result file");
}

#[test]
fn a_name_that_cannot_be_used_does_not_stop_the_class() {
    let class = Class::new();
    class.write("student.rs", &solution());
    class.write("red\u{1b}[31m\nforged.rs", &stub());
    // With `.json` it is too long.
    class.write(&format!("{}.rs", "z".repeat(251)), &stub());
    class.write("twice.rs", &stub());
    class.write("twice/lib.rs", &solution());
    let no_text = OsStr::from_bytes(b"\xff.rs");
    fs::write(class.path("student.rs").with_file_name(no_text), stub()).expect("a file");
    let output = class.grade_command("results", 2).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("it starts");
    let [lines, errors] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(lines.contains("student: 80 of 80 points"), "{lines}");
    assert!(
        lines.contains(r"red\u{1b}[31m\nforged: 0 of 80 points"),
        "{lines}"
    );
    assert!(errors.contains("File name too long"), "{errors}");
    assert!(
        errors.contains("has no name in UTF-8: rename it"),
        "{errors}"
    );
    let twice = "twice: several files or folders belong to this student: remove all but one";
    assert!(errors.contains(twice), "{errors}");
    let table = read(class.folder.path().join("results/results.csv"));
    assert!(table.contains("student,private-alloc,80,80"), "{table}");
    assert!(!table.contains("twice"), "{table}");
}

#[test]
fn an_answer_that_cannot_be_linked_is_told_why() {
    let solution = solution();
    let calls = "pub fn len(&self) -> usize {";
    let missing = "unsafe extern \"C\" { fn does_not_exist(); }\n";
    let calls_it = format!("{calls} unsafe {{ does_not_exist() }};");
    let answer = solution.replace(calls, &calls_it) + missing;
    let outcome = grade(&answer);
    expect_rejected(&outcome, "the answer cannot be linked: ");
    assert!(outcome.note.contains("does_not_exist"), "{}", outcome.note);
    let quoted = r#"compile_error!("No space left on device");"#;
    expect_rejected(&grade(&(solution + quoted)), "No space left on device");
}

#[test]
fn warnings_are_no_errors() {
    let mut warnings = String::new();
    for function in 0..100 {
        warnings += &format!("pub fn unused_{function}() {{\n");
        for variable in 0..200 {
            warnings += &format!("    let variable_{variable} = 1;\n");
        }
        warnings += "}\n";
    }
    let answer = solution() + &warnings;
    let outcome = grade(&answer);
    assert_eq!(points(&outcome), 80.0, "{outcome:#?}");
    let wrong = "pub fn wrong() -> u8 { \"\" }\n";
    expect_rejected(&grade(&(answer.clone() + wrong)), "mismatched types");
    let asked_for = grade(&format!("#![warn(warnings)]\n{answer}"));
    assert_eq!(points(&asked_for), 80.0, "{asked_for:#?}");
    let long = "x".repeat(600 << 10);
    let long = format!(
        "macro_rules! long {{ ($x:literal) => {{ compile_error!(concat!($x, $x, $x, $x, $x, $x, $x, $x)); }} }}\n\
         long!(\"{long}\");\n"
    );
    let outcome = grade(&(stub() + &long));
    expect_rejected(&outcome, "more than 4 MiB of errors");
}

#[test]
fn a_result_file_has_only_the_beginning_of_long_texts() {
    let solution = solution();
    let begin = "pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {";
    let calls = "for _ in 0..1500 { let _ = Region::new(len); }";
    let answer = solution.replace(begin, &format!("{begin} {calls}"));
    assert_ne!(answer, solution);
    let outcome = grade(&answer);
    assert_eq!(outcome.status, Status::Graded, "{outcome:#?}");
    let texts = |case: &workbook::grade::grader::Case| [case.transcript.clone(), case.diff.clone()];
    let texts = outcome.cases.iter().flat_map(texts).flatten();
    let longest = texts.max_by_key(String::len).expect("a transcript");
    assert!(longest.ends_with(" more lines)\n"), "{longest}");
    assert_eq!(longest.lines().count(), 1001);

    let errors: String = (0..1000)
        .map(|function| format!("pub fn wrong_{function}() -> u8 {{ \"\" }}\n"))
        .collect();
    let outcome = grade(&(solution + &errors));
    expect_rejected(&outcome, "mismatched types");
    assert!(outcome.compiler.ends_with(" more lines)\n"));
    assert_eq!(outcome.compiler.lines().count(), 1001);
}

#[test]
fn a_teacher_is_told_what_to_read() {
    let unusual = "pub fn key() -> Option<String> { std::env::var(\"JUDGE_CHILD\").ok() }\n";
    let outcome = grade(&(solution() + unusual));
    assert_eq!(points(&outcome), 80.0, "{outcome:#?}");
    assert_eq!(outcome.note, "the code has `JUDGE_`: read it");
}

#[test]
fn a_submission_that_cannot_be_read_is_not_rejected() {
    let class = Class::new();
    // Root may read any file, but opening a socket fails for everyone.
    let _socket = UnixListener::bind(class.path("student.rs")).expect("a socket");
    let outcome = class.one("student.rs");
    assert_eq!(outcome.status, Status::CouldNot, "{outcome:#?}");
    assert!(outcome.note.contains("cannot be read"), "{}", outcome.note);
    assert!(outcome.score.is_none());
}

#[test]
fn skipped_cases_are_flagged_and_cost_nothing() {
    let class = Class::new();
    class.write("right.rs", &solution());
    let outcome = class.one_with("right.rs", |command| {
        command.env("JUDGE_NO_PTRACE", "1");
    });
    assert_eq!(outcome.status, Status::Graded, "{outcome:#?}");
    let score = outcome.score.expect("a score");
    assert!(score.skipped > 0);
    assert_eq!(score.points, score.possible);
    assert!(
        outcome.note.contains("cases skipped: this machine"),
        "{}",
        outcome.note
    );
    // With a tracer it is graded again.
    let again = class.one("right.rs");
    assert_eq!(again.score.expect("a score").skipped, 0);
}

#[test]
fn without_bubblewrap_nothing_is_graded() {
    let class = Class::new();
    class.write("student.rs", &solution());
    let tools = class.folder.path().join("bin");
    fs::create_dir(&tools).expect("a folder");
    for tool in ["sha256sum", "cc"] {
        symlink(Path::new("/usr/bin").join(tool), tools.join(tool)).expect("a link");
    }
    let mut command = class.grade_command("results", 1);
    let output = command.env("PATH", &tools).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("apt install bubblewrap"), "{errors}");
    assert!(!class.result("results", "student").exists());
}

#[test]
fn a_solution_can_be_neither_included_nor_read() {
    let path = exercise().solution();
    let path = path.display();
    let attacks = [
        format!("include!({path:?});\n", path = path.to_string()),
        format!("#[path = \"{path}\"]\nmod solution;\npub use solution::*;\n"),
        format!("{}\nconst _: &str = include_str!(\"{path}\");\n", stub()),
    ];
    for attack in attacks {
        expect_rejected(&grade(&attack), "does not compile");
    }
}

#[test]
fn build_scripts_and_procedural_macros_do_not_run() {
    let class = Class::new();
    let ran = class.folder.path().join("ran");
    let script = format!("fn main() {{ std::fs::write({ran:?}, \"\").unwrap(); }}\n");
    class.write(
        "script/Cargo.toml",
        "[package]\nname = \"script\"\nbuild = \"build.rs\"\n",
    );
    class.write("script/build.rs", &script);
    class.write("script/src/lib.rs", &stub());
    let script = class.one("script");
    assert_eq!((script.status, points(&script)), (Status::Graded, 0.0));
    assert!(!ran.exists());

    let macros = format!(
        "extern crate proc_macro;\n#[proc_macro]\npub fn pass(_: proc_macro::TokenStream) -> \
         proc_macro::TokenStream {{ std::fs::write({ran:?}, \"\").unwrap(); std::process::exit(0) }}\n"
    );
    class.write(
        "macros/Cargo.toml",
        "[package]\nname = \"macros\"\n[lib]\nproc-macro = true\n",
    );
    class.write("macros/src/lib.rs", &format!("{macros}\n{}", stub()));
    expect_rejected(&class.one("macros"), "does not compile");
    assert!(!ran.exists());
}

#[test]
fn endless_evaluation_by_the_compiler_is_stopped() {
    let endless = "#[allow(long_running_const_eval)]\nconst _: () = loop {};\n";
    let outcome = grade(&(stub() + endless));
    expect_rejected(&outcome, "still compiling after 60 s");
}

#[test]
fn what_the_compiler_cannot_hold_is_rejected() {
    let large = "pub static LARGE: &[u8] = include_bytes!(\"/dev/zero\");\n";
    let outcome = grade(&format!("{}{large}", stub()));
    assert_eq!(outcome.status, Status::Rejected, "{outcome:#?}");
}

#[test]
fn code_before_main_forges_no_verdict_and_kills_nothing() {
    let outcome = grade(&(stub() + &attack("constructor")));
    assert_eq!(points(&outcome), 0.0, "{outcome:#?}");
    let passed =
        |case: &workbook::grade::grader::Case| case.verdict == course::log::Verdict::Passed;
    assert!(!outcome.cases.iter().any(passed), "{outcome:#?}");
}

/// Also by a macro, behind a first line that a shell would read, and in the text of an assembler or a linker.
#[test]
fn replaced_symbols_are_rejected() {
    let defines = |symbol: &str| format!("the answer defines the symbol `{symbol}`, which can");
    let outcome = grade(&(stub() + &attack("symbols")));
    expect_rejected(&outcome, "the answer defines the symbol `");
    let attribute = "macro_rules! with { ($item:item) => { #[unsafe(r#export_name = \"write\")] $item } }\n\
         with! { pub extern \"C\" fn replaces() {} }\n";
    let text = "use std::arch::asm as text;\n#[allow(named_asm_labels)]\npub fn replaces() {\n    \
         // SAFETY: no instruction is executed.\n    \
         unsafe { text!(\".pushsection .text\", \".weak write\", \"write: .4byte 0\", \".popsection\") }\n}\n";
    for answer in [
        stub() + attribute,
        format!("#!/not a \"literal\n{}{attribute}", stub()),
        stub() + text,
    ] {
        expect_rejected(&grade(&answer), &defines("write"));
    }
    let class = Class::new();
    let linked = r#"
        #[link(name = "../../../proc/self/cwd/src/script.rs", kind = "dylib", modifiers = "+verbatim")]
        unsafe extern "C" {}
        #[used]
        #[unsafe(link_section = "replaces")]
        static REPLACES: [u8; 16] = [0xc3; 16];
    "#;
    class.write("folder/src/lib.rs", &(stub() + linked));
    class.write("folder/src/script.rs", "memcmp = __start_replaces;\n");
    expect_rejected(&class.one("folder"), "the answer cannot be linked");
}

/// The names of its symbols are the same everywhere.
#[test]
fn a_function_of_the_standard_library_is_not_replaced() {
    let folder = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .output()
        .expect("rustc starts");
    let folder = String::from_utf8(folder.stdout).expect("a path");
    let symbols = Command::new("readelf")
        .args(["--symbols", "--wide"])
        .arg(library("std", Path::new(folder.trim_end())))
        .output()
        .expect("readelf starts");
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let is_defined = |line: &&str| line.contains(" GLOBAL ") && !line.contains(" UND ");
    let mut names = symbols
        .lines()
        .filter(is_defined)
        .filter_map(|line| line.rsplit(' ').next());
    let symbol = names.find(|name| name.starts_with("_R") || name.starts_with("_ZN"));
    let symbol = symbol.expect("a function of the library");
    let replaces =
        format!("#[unsafe(export_name = {symbol:?})]\npub extern \"C\" fn replaces() {{}}\n");
    let note = format!("the answer defines the symbol `{symbol}`, which can");
    expect_rejected(&grade(&(stub() + &replaces)), &note);
}

#[test]
fn symbols_that_readelf_cannot_list_are_rejected() {
    let names: Vec<String> = (0..9000).map(|number| format!("f{number}")).collect();
    let many = format!(
        "macro_rules! many {{ ($($name:ident)*) => {{ $(#[inline(never)] pub fn $name() {{ std::hint::black_box(1); }})* }} }}\n\
         pub mod {} {{ many!(NAMES); }}\n",
        "a".repeat(4000)
    );
    let many = many.replace("NAMES", &names.join(" "));
    expect_rejected(&grade(&(stub() + &many)), "too many symbols");
}

/// Otherwise an answer could call a function of the judge, or replace one.
#[test]
fn symbols_have_names_that_students_do_not_know() {
    // Prepares the exercise.
    grade(&stub());
    let config = read(root().join(".workbook/class/.cargo/config.toml"));
    let (_, number) = config.split_once("-Cmetadata=").expect("a flag");
    let number = number.trim_end_matches(|sign: char| !sign.is_ascii_hexdigit());
    assert_eq!(number.len(), 32);
    for command in ["grader", "private_alloc"] {
        let arguments = prepared().join("recorded").join(command);
        let arguments = read(arguments.with_extension("arguments"));
        assert!(arguments.contains(number), "{arguments}");
    }
}

/// Most cases wait. There is time for some of them.
#[test]
fn a_submission_that_waits_again_and_again_is_stopped() {
    let solution = solution();
    let begin = "pub fn new(len: usize) -> io::Result<Region> {";
    let waits = format!("{begin}\n        std::thread::sleep(std::time::Duration::MAX);");
    assert!(solution.contains(begin));
    let class = Class::new();
    class.write("student.rs", &solution.replace(begin, &waits));
    let outcome = class.one_with("student.rs", |command| {
        command.args(["--minutes", "1"]);
    });
    assert_eq!(outcome.status, Status::Graded, "{outcome:#?}");
    let note = "of the cases had no verdict when the time of the whole submission was over";
    assert!(outcome.note.contains(note), "{outcome:#?}");
    assert!((1.0..80.0).contains(&points(&outcome)), "{outcome:#?}");
    let names = |outcome: &Outcome| -> Vec<_> {
        let cases = outcome.cases.iter();
        cases.map(|case| case.name.clone()).collect()
    };
    assert_eq!(names(&outcome), names(&grade(&solution)));
}

#[test]
fn a_word_for_a_symbol_is_no_symbol() {
    let mentioned = "/// No `no_mangle` here, and no global_asm.\npub const WORD: &str = \"no_mangle\";\n\
         pub fn export_name() {}\n";
    let outcome = grade(&(solution() + mentioned));
    assert_eq!(points(&outcome), 80.0, "{outcome:#?}");
}

/// The answer reads its environment, and writes lines like those of the judge.
#[test]
fn a_report_with_what_the_environment_tells_is_none() {
    let outcome = grade(&(stub() + &attack("report")));
    assert_eq!(outcome.status, Status::Graded, "{outcome:#?}");
    assert_eq!(points(&outcome), 0.0, "{outcome:#?}");
}

#[test]
fn a_pass_that_is_printed_is_none() {
    let forged = r#"{
        for case in ["by_hand::zeroed_and_writable", "by_hand::unmapped"] {
            println!("{{\"case\":\"{case}\",\"verdict\":\"passed\",\"kind\":\"passed\",\"sentence\":null}}");
            println!("test {case} ... ok");
        }
        println!("test result: ok. 55 passed; 0 failed");
        std::process::exit(0)
    }"#;
    let outcome = grade(&in_map_by_hand(forged));
    assert_eq!(outcome.status, Status::Graded, "{outcome:#?}");
    assert_eq!(points(&outcome), 0.0, "{outcome:#?}");
}

/// The stub with this body of its first function.
fn in_map_by_hand(body: &str) -> String {
    let stub = stub();
    let place = stub.find("pub fn map_by_hand").expect("the function");
    let todo = place + stub[place..].find("todo!(").expect("a todo");
    let end = todo + stub[todo..].find(')').expect("its end") + 1;
    format!("{}{body}{}", &stub[..todo], &stub[end..])
}

/// What is out of reach: solutions, results, graders, other submissions, processes, the network, the environment, and the
/// judge's memory.
#[test]
fn an_answer_reaches_nothing_but_its_own_folder() {
    let class = Class::new();
    class.write("other.rs", &solution());
    let other = class.one("other.rs");
    assert_eq!(points(&other), 80.0, "{other:#?}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let paths = [
        ("@SOLUTION@", exercise().solution()),
        ("@ANSWERS@", exercise().answers()),
        ("@RESULT@", class.result("one", "other.rs")),
        ("@OTHER@", class.path("other.rs")),
        ("@GRADER@", exercise().grader().join("main.rs")),
        ("@JUDGE@", prepared().join("judge")),
        ("@PROGRAM@", program()),
        (
            "@DEPENDENCY@",
            library("judge", program().parent().expect("a folder")),
        ),
        ("@ADDRESS@", address.into()),
    ];
    let mut probe = attack("probe");
    for (name, path) in &paths {
        assert!(probe.contains(name), "{name}");
        probe = probe.replace(name, &path.display().to_string());
    }
    class.write("probe.rs", &in_map_by_hand(&probe));
    let outcome = class.one_with("probe.rs", |command| {
        command.env("CLASS_SECRET", "1");
        // SAFETY: between fork and exec the function makes only system calls.
        unsafe { command.pre_exec(begin_session_with_a_key) };
    });
    assert_eq!(points(&outcome), 0.0, "{outcome:#?}");
    let sentences = outcome
        .cases
        .iter()
        .filter_map(|case| case.sentence.as_ref());
    let reached: Vec<_> = sentences
        .filter(|sentence| sentence.contains("It reached: "))
        .collect();
    assert!(!reached.is_empty(), "{outcome:#?}");
    for sentence in reached {
        assert!(sentence.contains("It reached: []"), "{sentence}");
    }
    // What it may have tried to overwrite is as it was.
    class.write("after.rs", &(solution() + "// after\n"));
    let after = class.one("after.rs");
    assert_eq!(points(&after), 80.0, "{after:#?}");
}

/// Gives this process a session keyring with a key. Where the kernel has no keyrings, there is nothing to reach.
fn begin_session_with_a_key() -> io::Result<()> {
    let no_name = ptr::null::<libc::c_char>();
    let keyring = libc::KEY_SPEC_SESSION_KEYRING;
    let (kind, name, value) = (c"user".as_ptr(), c"class-secret".as_ptr(), c"1".as_ptr());
    // SAFETY: the call reads no memory.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    // SAFETY: the texts end with zeros, and the value has one byte before its zero.
    unsafe { libc::syscall(libc::SYS_add_key, kind, name, value, 1, keyring) };
    Ok(())
}

/// It would run in the process that forks the cases, without the limits of a case.
#[test]
fn code_that_runs_before_the_judges_own_is_rejected() {
    let first = "extern \"C\" fn first() {}\n";
    for section in [".preinit_array", ".init_array.0", ".ctors", ".init"] {
        let attributes = format!("#[used]\n#[unsafe(link_section = \"{section}\")]\n");
        let answer = format!(
            "{}{first}{attributes}static FIRST: extern \"C\" fn() = first;\n",
            stub()
        );
        let note = format!("the answer has a section `{section}`, which can run code before");
        expect_rejected(&grade(&answer), &note);
    }
    let text = "use std::arch::asm as text;\n#[allow(named_asm_labels)]\npub fn chooses() {\n    \
         // SAFETY: no instruction is executed.\n    \
         unsafe { text!(\".pushsection .text\", \".type chosen,@gnu_indirect_function\", \"chosen: .4byte 0\", \
         \".popsection\") }\n}\n";
    let note = "the answer has an indirect function, `chosen`";
    expect_rejected(&grade(&(stub() + text)), note);
}

/// A function that is inlined into the grader is no part of the compiled answer.
#[test]
fn code_for_the_whole_program_is_also_rejected_if_it_is_inlined() {
    let begin = "pub fn len(&self) -> usize {";
    for (text, note) in [
        (
            r#"".pushsection .preinit_array,\"aw\"", ".quad 0", ".popsection""#,
            "the answer has a section `.preinit_array`, which can run code before",
        ),
        (
            // Once, although it may be inlined in several places.
            r#"".ifndef once", ".set once, 1", ".pushsection .text", ".weak strlen", "strlen: .4byte 0",
            ".popsection", ".endif""#,
            "the answer defines the symbol `strlen`, which can",
        ),
    ] {
        let inlined = format!(
            "#[inline(always)]\n    #[allow(named_asm_labels)]\n    {begin}\n        \
             unsafe {{ std::arch::asm!({text}) }};"
        );
        let stub = stub();
        assert!(stub.contains(begin));
        expect_rejected(&grade(&stub.replace(begin, &inlined)), note);
    }
}

/// The kernel counts descriptors in the queues of sockets per user, and the judge sends some.
#[test]
fn descriptors_in_queues_do_not_disturb_other_submissions() {
    let class = Class::new();
    class.write("fills.rs", &in_map_by_hand(&attack("descriptors")));
    for student in ["one", "two", "three"] {
        class.write(
            &format!("{student}.rs"),
            &format!("{}// {student}\n", solution()),
        );
    }
    let mut command = class.grade_command("results", 2);
    let lower = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, 1024.min(hard), hard)?)
    };
    // SAFETY: between fork and exec the closure makes only system calls.
    unsafe { command.pre_exec(lower) };
    command.output().expect("the command starts");
    let table = read(class.folder.path().join("results/results.csv"));
    assert_eq!(table.matches(",80,80,0,0,graded,").count(), 3, "{table}");
    assert!(
        table.contains("fills,private-alloc,0,80,0,0,graded,"),
        "{table}"
    );
}

#[test]
fn a_link_as_the_answer_is_rejected() {
    let class = Class::new();
    symlink(exercise().solution(), class.path("link.rs")).expect("a link");
    expect_rejected(&class.one("link.rs"), "symbolic link");
    class.write("folder/notes", "");
    symlink(exercise().solution(), class.path("folder/lib.rs")).expect("a link");
    expect_rejected(&class.one("folder"), "symbolic link");
}
