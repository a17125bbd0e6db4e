//! Looks into a compiled answer for what would interfere with the program of which it becomes a part.
//!
//! The source does not show this: inline assembly defines symbols and sections, as attributes do, and an attribute may
//! come from a macro.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use course::process::{self, End, Limits};

use crate::grade::sandbox::Sandbox;

/// The sections that the compiler makes. Others could be code that runs before the judge's own, such as `.preinit_array`,
/// or could change how the program is loaded. A point and a name may follow, except for `.init_array`, where a number would
/// place a function before those of the judge.
const SECTIONS: [&str; 15] = [
    ".bss",
    ".comment",
    ".data",
    ".eh_frame",
    ".gcc_except_table",
    ".group",
    ".note",
    ".rmeta",
    ".rodata",
    ".shstrtab",
    ".strtab",
    ".symtab",
    ".tbss",
    ".tdata",
    ".text",
];

const LIMITS: Limits = Limits {
    time: Duration::from_secs(60),
    output: 64 << 20,
};

fn readelf() -> Command {
    let mut command = Command::new("readelf");
    command.args(["--sections", "--symbols", "--wide"]);
    command
}

/// What readelf prints, or `None` if that is too long.
fn output(mut command: Command) -> Result<Option<String>> {
    let ran = process::run(&mut command, LIMITS)
        .context("readelf cannot be started; it is part of GNU binutils")?;
    if ran.end == End::OutputLimit {
        return Ok(None);
    }
    ensure!(ran.success(), "readelf {}: {}", ran.describe(), ran.stderr);
    Ok(Some(ran.stdout))
}

const TOO_LONG: &str = "the answer has too many symbols, or symbols whose names are too long";

/// Returns the symbols that the libraries define.
///
/// # Errors
/// Returns an error if readelf(1) cannot be run.
pub fn symbols(libraries: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut command = readelf();
    command.args(libraries);
    let text = output(command)?.context("the libraries have too many symbols")?;
    let symbols = text.lines().filter_map(symbol);
    let defined = symbols.filter(|symbol| symbol.is_defined && !symbol.is_shared());
    Ok(defined.map(|symbol| symbol.name.to_owned()).collect())
}

/// Returns why the answer in `library` is rejected, as a sentence. `others` are the symbols of the libraries with which it
/// is linked.
///
/// # Errors
/// Returns an error if readelf(1) cannot be run.
pub fn rejected(
    sandbox: &Sandbox,
    library: &Path,
    others: &BTreeSet<String>,
) -> Result<Option<String>> {
    let mut command = readelf();
    command.arg(library);
    let Some(text) = output(sandbox.compiler(&command)?)? else {
        return Ok(Some(TOO_LONG.to_owned()));
    };
    Ok(text.lines().find_map(|line| foreign(line, others)))
}

/// Returns why the answer is rejected for a function that is compiled into the object files of its grader, because it is
/// generic or inlined there. `with_stub` are the object files of the same grader with the stub.
///
/// # Errors
/// Returns an error if readelf(1) cannot be run.
pub fn rejected_in_grader(
    sandbox: &Sandbox,
    objects: &[PathBuf],
    with_stub: &[PathBuf],
    others: &BTreeSet<String>,
) -> Result<Option<String>> {
    let mut command = readelf();
    let Some(text) = output(sandbox.compiler(command.args(objects))?)? else {
        return Ok(Some(TOO_LONG.to_owned()));
    };
    let mut command = readelf();
    command.args(with_stub);
    let of_grader = output(command)?.context("the grader has too many symbols")?;
    let mut of_grader: Vec<_> = of_grader
        .lines()
        .filter(|line| foreign(line, others).is_some())
        .map(without_place)
        .collect();
    Ok(text.lines().find_map(|line| {
        let sentence = foreign(line, others)?;
        let place = of_grader.iter().position(|own| *own == without_place(line));
        match place {
            Some(place) => {
                of_grader.swap_remove(place);
                None
            }
            None => Some(sentence),
        }
    }))
}

/// The name of a symbol, or the name and the size of a section, in a line of readelf.
fn without_place(line: &str) -> Vec<&str> {
    match line.trim_start().strip_prefix('[') {
        // Number, name, type, address, place in the file and size.
        Some(section) => {
            let (_, fields) = section.split_once(']').unwrap_or_default();
            let fields: Vec<_> = fields.split_whitespace().collect();
            [0, 4]
                .iter()
                .filter_map(|index| fields.get(*index).copied())
                .collect()
        }
        None => symbol(line).iter().map(|symbol| symbol.name).collect(),
    }
}

/// A symbol of a library.
struct Symbol<'a> {
    name: &'a str,
    kind: &'a str,
    /// Whether other object files can use it, and its definition is here.
    is_defined: bool,
}

impl Symbol<'_> {
    /// Whether each object file has it: the address of the function by which exceptions pass.
    fn is_shared(&self) -> bool {
        self.name == "DW.ref.rust_eh_personality"
    }

    /// Whether the compiler has chosen its name.
    fn is_mangled(&self) -> bool {
        self.name.starts_with("_ZN") || self.name.starts_with("_R")
    }
}

/// The symbol in a line of readelf: number, value, size, type, binding, visibility, section and name.
fn symbol(line: &str) -> Option<Symbol<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (number, kind) = (fields.first()?, fields.get(3)?);
    number.strip_suffix(':')?.parse::<u64>().ok()?;
    let (binding, section) = (fields.get(4)?, fields.get(6)?);
    Some(Symbol {
        name: fields.get(7).copied().unwrap_or_default(),
        kind,
        is_defined: *binding != "LOCAL" && *section != "UND",
    })
}

/// What is wrong with the section or the symbol in a line of readelf.
fn foreign(line: &str, others: &BTreeSet<String>) -> Option<String> {
    if let Some(section) = line.trim_start().strip_prefix('[') {
        let (_, section) = section.split_once(']')?;
        // The first section has no name, and its type is here.
        let name = section.split_whitespace().next().unwrap_or_default();
        return is_foreign_section(name).then(|| {
            format!(
                "the answer has a section `{name}`, which can run code before the judge's own; no task needs it"
            )
        });
    }
    let symbol = symbol(line)?;
    let name = symbol.name;
    if symbol.kind == "IFUNC" {
        return Some(format!(
            "the answer has an indirect function, `{name}`, which runs code before the judge's own; no task needs it"
        ));
    }
    // The hash in a mangled name is the same in a student's clone, so that it can be copied.
    let is_own = symbol.is_shared() || symbol.is_mangled() && !others.contains(name);
    (symbol.is_defined && !is_own).then(|| {
        format!(
            "the answer defines the symbol `{name}`, which can replace a function of the whole program; no task needs it"
        )
    })
}

fn is_foreign_section(name: &str) -> bool {
    let name = name.strip_prefix(".rela").unwrap_or(name);
    let is_array = [".init_array", ".fini_array"].contains(&name);
    let is_named = |section: &&str| {
        let rest = name.strip_prefix(*section);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // Those for a debugger.
    let is_debug = name.starts_with(".debug_");
    name.starts_with('.') && !is_array && !is_debug && !SECTIONS.iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> BTreeSet<String> {
        let names = ["_ZN5judge5child6panics4skip17h0E", "_RNvCs5_5judge4skip"];
        names.map(str::to_owned).into()
    }

    #[test]
    fn only_what_acts_on_the_whole_program_is_foreign() {
        for line in [
            "File: libanswer.rlib(answer.1.rcgu.o)",
            "  [Nr] Name              Type            Address          Off    Size   ES Flg Lk Inf Al",
            "  [ 0]                   NULL            0000000000000000 000000 000000 00      0   0  0",
            "  [ 1] .strtab           STRTAB          0000000000000000 000688 000326 00      0   0  1",
            "  [12] .rela.text._ZN1a1b17h0E RELA      0000000000000000 000598 000018 18   I 36   4  8",
            "  [14] .init_array       INIT_ARRAY      0000000000000000 000040 000008 00  WA  0   0  8",
            "   Num:    Value          Size Type    Bind   Vis      Ndx Name",
            "     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND ",
            "     3: 0000000000000000     9 FUNC    LOCAL  DEFAULT    4 local",
            "     5: 0000000000000000     0 NOTYPE  GLOBAL DEFAULT  UND memcmp",
            "     6: 0000000000000000     9 FUNC    GLOBAL DEFAULT    4 _ZN1a1b17h0E",
            "     7: 0000000000000000     9 FUNC    GLOBAL HIDDEN     4 _RNvCs12_1a1b",
            "     8: 0000000000000000     8 OBJECT  WEAK   HIDDEN     9 DW.ref.rust_eh_personality",
        ] {
            assert_eq!(foreign(line, &others()), None, "{line}");
        }
        for (line, what) in [
            (
                "  [ 4] .init_array.00000 INIT_ARRAY      0000000000000000 000040 000008 00  WA  0   0  8",
                "section `.init_array.00000`",
            ),
            (
                "  [15] .dynamic          PROGBITS        0000000000000000 000040 000008 00  WA  0   0  8",
                "section `.dynamic`",
            ),
            (
                "    12: 0000000000000000     1 FUNC    WEAK   HIDDEN    11 memcmp",
                "symbol `memcmp`",
            ),
            (
                "    13: 0000000000000008     8 OBJECT  GLOBAL DEFAULT  COM write",
                "symbol `write`",
            ),
            (
                "    14: 0000000000000000     9 FUNC    GLOBAL DEFAULT    4 _ZN5judge5child6panics4skip17h0E",
                "symbol `_ZN5judge5child6panics4skip17h0E`",
            ),
            (
                "    15: 0000000000000000     9 FUNC    GLOBAL HIDDEN     4 _RNvCs5_5judge4skip",
                "symbol `_RNvCs5_5judge4skip`",
            ),
            (
                "    16: 0000000000000000     4 IFUNC   LOCAL  DEFAULT   11 chosen",
                "function, `chosen`",
            ),
        ] {
            let sentence = foreign(line, &others()).expect("it is foreign");
            assert!(sentence.contains(what), "{sentence}");
        }
    }
}
