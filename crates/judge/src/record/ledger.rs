//! The net effect of the watched part of a case: what was mapped, and what was left at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use rangemap::RangeSet;

use super::space::Space;
use crate::format;

/// The net effect of the watched parts of a case, in its first process.
///
/// Right answers differ in their calls, but not in their net effect. Only what is there at the end of a `watch` counts:
/// not what the answer mapped and unmapped before. A guard page, or an address range that is reserved without access,
/// counts as mapped only if it is left behind.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    opened: BTreeMap<usize, Account>,
    /// Ranges whose munmap the judge made fail. What is mapped there is not the answer's fault.
    excused: RangeSet<u64>,
    descriptors_left: i64,
    children_left: usize,
}

/// The effect of one mapping.
#[derive(Debug, Clone, Default)]
struct Account {
    kind: &'static str,
    /// Offsets that were readable and writable at the end of any `watch`.
    used: RangeSet<u64>,
    /// Bytes that are still mapped.
    left: u64,
}

impl Ledger {
    /// Adds the mapping with this id.
    pub(crate) fn open(&mut self, id: usize) {
        self.opened.insert(id, Account::default());
    }

    /// Whether the ledger has the mapping with this id.
    pub(crate) fn is_open(&self, id: usize) -> bool {
        self.opened.contains_key(&id)
    }

    /// Excuses what stays mapped in `range`.
    pub(crate) fn excuse(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.excused.insert(range);
        }
    }

    /// Updates the accounts from the address space at the end of a `watch`.
    pub(crate) fn look(&mut self, space: &Space) {
        for account in self.opened.values_mut() {
            account.left = 0;
        }
        for (range, mapping) in space.all() {
            let Some(account) = self.opened.get_mut(&mapping.id) else {
                continue;
            };
            account.left += self
                .excused
                .gaps(range)
                .map(|gap| gap.end - gap.start)
                .sum::<u64>();
            account.kind = match (mapping.shared, mapping.anonymous) {
                (false, true) => "private anonymous",
                (true, true) => "shared anonymous",
                (false, false) => "private, from a descriptor",
                (true, false) => "shared, from a descriptor",
            };
            if mapping.usable() {
                let offsets = range.start - mapping.start..range.end - mapping.start;
                account.used.insert(offsets);
            }
        }
    }

    /// Adds descriptors that are open and children that are not waited for at the end of a `watch`.
    pub(crate) fn left(&mut self, descriptors: i64, children: usize) {
        self.descriptors_left += descriptors;
        self.children_left += children;
    }

    /// The keys and values of the ledger's lines.
    fn lines(&self) -> [(&'static str, String); 4] {
        let mut mapped: BTreeMap<&str, u64> = BTreeMap::new();
        for account in self.opened.values() {
            let bytes: u64 = account
                .used
                .iter()
                .map(|range| range.end - range.start)
                .sum();
            if bytes > 0 {
                *mapped.entry(account.kind).or_default() += bytes;
            }
        }
        let mapped: Vec<String> = mapped
            .iter()
            .map(|(kind, bytes)| format!("{} {kind}", format::size(*bytes)))
            .collect();
        let left: u64 = self.opened.values().map(|account| account.left).sum();
        [
            ("mapped", or_nothing(mapped.join(" and "))),
            (
                "still mapped",
                or_nothing(if left > 0 {
                    format::size(left)
                } else {
                    String::new()
                }),
            ),
            ("descriptors left", self.descriptors_left.to_string()),
            ("children left", self.children_left.to_string()),
        ]
    }
}

impl Ledger {
    /// What is left at the end, as differences from nothing.
    pub fn leftovers(&self) -> Vec<Difference> {
        let lines = self.lines().into_iter();
        lines
            .filter(|(key, _)| *key != "mapped")
            .filter_map(|(key, got)| {
                let expected = if key == "still mapped" {
                    "nothing"
                } else {
                    "0"
                };
                (got != expected).then(|| Difference {
                    key: key.to_owned(),
                    expected: expected.to_owned(),
                    got,
                })
            })
            .collect()
    }
}

fn or_nothing(text: String) -> String {
    match text.is_empty() {
        true => "nothing".to_owned(),
        false => text,
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (key, value)) in self.lines().iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{key}: {value}")?;
        }
        Ok(())
    }
}

/// One line of a ledger that differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `mapped`, `still mapped`, `descriptors left` or `children left`.
    pub key: String,
    pub expected: String,
    pub got: String,
}

/// The lines in which `got` differs from `expected`.
pub fn differences(expected: &str, got: &str) -> Vec<Difference> {
    let expected = expected
        .trim()
        .lines()
        .filter_map(|line| line.split_once(": "));
    expected
        .zip(got.trim().lines().filter_map(|line| line.split_once(": ")))
        .filter(|(expected, got)| expected != got)
        .map(|((key, expected), (_, got))| Difference {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: got.to_owned(),
        })
        .collect()
}
