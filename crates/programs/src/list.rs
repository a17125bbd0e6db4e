//! The programs, and their small inputs.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program with something to do. It runs in an empty folder, beside the folder `input`.
pub struct Program {
    /// The name of the executable, by which it is found and chosen.
    pub name: &'static str,
    /// Continues a sentence that begins with the name.
    pub task: &'static str,
    /// The package of Debian and Ubuntu.
    pub package: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Files that it writes, which are compared, too.
    pub files: &'static [&'static str],
    /// Writes the inputs into a folder.
    pub prepare: fn(&Path) -> io::Result<()>,
}

pub const PROGRAMS: [Program; 7] = [
    Program {
        name: "sqlite3",
        task: "builds and queries a database",
        package: "sqlite3",
        arguments: &["-batch", "database", ".read ../input/queries.sql"],
        environment: &[],
        files: &["database"],
        prepare: |input| {
            fs::write(
                input.join("queries.sql"),
                include_str!("inputs/queries.sql"),
            )
        },
    },
    Program {
        name: "git",
        task: "imports, packs and reads a repository",
        package: "git",
        // git finds its own commands; `sh` only runs one after the other.
        arguments: &["-c", "alias.all=!sh -e ../input/commands.sh", "all"],
        environment: &[
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_PAGER", "cat"),
        ],
        files: &[],
        prepare: |input| {
            fs::write(
                input.join("commands.sh"),
                include_str!("inputs/commands.sh"),
            )?;
            fs::write(input.join("history"), history())
        },
    },
    Program {
        name: "python3",
        task: "allocates in four threads",
        package: "python3",
        arguments: &["-W", "ignore", "../input/threads.py"],
        environment: PYTHON,
        files: &[],
        prepare: |input| fs::write(input.join("threads.py"), include_str!("inputs/threads.py")),
    },
    Program {
        name: "python3",
        task: "forks while other threads allocate",
        package: "python3",
        arguments: &["-W", "ignore", "../input/fork.py"],
        environment: PYTHON,
        files: &[],
        prepare: |input| fs::write(input.join("fork.py"), include_str!("inputs/fork.py")),
    },
    Program {
        name: "cc",
        task: "compiles a file",
        package: "build-essential",
        arguments: &["-O2", "-c", "../input/program.c", "-o", "program.o"],
        environment: &[],
        files: &["program.o"],
        prepare: |input| fs::write(input.join("program.c"), c_program()),
    },
    Program {
        name: "perl",
        task: "counts the words of a text",
        package: "perl",
        arguments: &["../input/words.pl", "../input/text"],
        environment: &[("PERL_HASH_SEED", "0")],
        files: &[],
        prepare: |input| {
            fs::write(input.join("words.pl"), include_str!("inputs/words.pl"))?;
            fs::write(input.join("text"), text())
        },
    },
    Program {
        name: "jq",
        task: "groups and sorts objects",
        package: "jq",
        arguments: &[
            "-n",
            "-c",
            "-f",
            "../input/group.jq",
            "../input/objects.json",
        ],
        environment: &[],
        files: &[],
        prepare: |input| {
            fs::write(input.join("group.jq"), include_str!("inputs/group.jq"))?;
            fs::write(input.join("objects.json"), objects())
        },
    },
];

/// By default, Python serves blocks of up to 512 bytes itself.
const PYTHON: &[(&str, &str)] = &[
    ("PYTHONMALLOC", "malloc"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

impl Program {
    /// Returns the path of the executable; `None` if it is not installed.
    pub fn find(&self) -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        let mut places = env::split_paths(&path).map(|folder| folder.join(self.name));
        let found = places.find(|place| place.is_file())?;
        if self.name != "python3" {
            return Some(found);
        }
        // It may be a script that chooses a version.
        let which = ["-c", "import sys; print(sys.executable)"];
        let output = Command::new(found).args(which).output().ok()?;
        let real = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| real.trim_end().into())
    }

    /// Returns the command that runs it in `folder`, with no other environment than its own.
    pub fn command(&self, executable: &Path, folder: &Path) -> Command {
        let mut command = Command::new(executable);
        command
            .args(self.arguments)
            .current_dir(folder)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .envs(self.environment.iter().copied());
        command
    }
}

/// A pseudorandom sequence that is the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn word(&mut self) -> String {
        let length = 2 + self.below(9);
        let letter = |random: &mut Random| char::from(b'a' + random.below(26) as u8);
        (0..length).map(|_| letter(self)).collect()
    }

    fn line(&mut self, words: &[String]) -> String {
        let line: Vec<&str> = (0..10)
            .map(|_| words[self.below(words.len() as u64) as usize].as_str())
            .collect();
        line.join(" ")
    }
}

fn words(random: &mut Random, count: usize) -> Vec<String> {
    (0..count).map(|_| random.word()).collect()
}

fn text() -> String {
    let mut random = Random(1);
    let words = words(&mut random, 4000);
    let lines: Vec<String> = (0..6000).map(|_| random.line(&words)).collect();
    lines.join("\n") + "\n"
}

fn objects() -> String {
    let mut random = Random(2);
    let words = words(&mut random, 300);
    let mut text = String::new();
    for id in 0..4000 {
        let (name, line) = (&words[random.below(300) as usize], random.line(&words));
        let _ = writeln!(
            text,
            r#"{{"id": {id}, "name": "{name}", "text": "{line}"}}"#
        );
    }
    text
}

/// A history of 100 commits for `git fast-import`. Each changes two of 40 files.
fn history() -> String {
    let mut random = Random(3);
    let words = words(&mut random, 2000);
    let mut files: Vec<Vec<String>> = (0..40)
        .map(|_| (0..100).map(|_| random.line(&words)).collect())
        .collect();
    let mut stream = String::new();
    for commit in 0..100 {
        let message = format!("Commit {commit}");
        let _ = write!(
            stream,
            "commit refs/heads/main\ncommitter A <a@example.org> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + commit * 60,
            message.len(),
        );
        let changed = match commit {
            0 => (0..files.len()).collect(),
            _ => vec![random.below(40) as usize, random.below(40) as usize],
        };
        for file in changed {
            for _ in 0..5 {
                let line = random.below(100) as usize;
                files[file][line] = random.line(&words);
            }
            let text = files[file].join("\n") + "\n";
            let _ = write!(
                stream,
                "M 644 inline file-{file}\ndata {}\n{text}\n",
                text.len()
            );
        }
    }
    stream
}

/// A program in C with 150 functions.
fn c_program() -> String {
    let mut random = Random(4);
    let mut text = String::from("struct node { struct node *next; long value[4]; };\n");
    for number in 0..150 {
        let (factor, index) = (random.below(1000), random.below(4));
        let _ = writeln!(
            text,
            "long function_{number}(struct node *list, long count)\n\
             {{\n\
             \tlong sum = {number};\n\
             \tfor (struct node *node = list; node; node = node->next)\n\
             \t\tfor (long i = 0; i < count; i++)\n\
             \t\t\tsum += node->value[(i + {index}) % 4] * {factor} ^ i;\n\
             \tswitch (sum % 5) {{ case 0: return sum; case 1: return sum * count; default: return -sum; }}\n\
             }}",
        );
    }
    text
}
