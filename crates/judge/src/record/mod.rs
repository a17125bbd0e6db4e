//! The record of what a case does: the address space of each process always, its calls and their effect while watched.

pub mod call;
pub mod fault;
pub mod ledger;
pub mod process;
pub mod space;
pub mod transcript;

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{SysconfVar, sysconf};

use crate::format;
use call::{Call, Line};
use ledger::Ledger;
use process::{FIRST, Status};
use space::{Gone, Mapping, Space};

/// Marks, in a transcript, a call that the judge made to fail.
const REFUSED: &str = " (made to fail)";

/// A call that has returned.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub number: i64,
    /// What the kernel got.
    pub args: [u64; 6],
    /// What the answer had passed to libc: other lengths, if a page size is pretended.
    pub passed: [u64; 6],
    pub result: Result<u64, Errno>,
    /// Whether the judge made it fail.
    pub refused: bool,
    /// Whether a thread made it that std has started.
    pub in_new_thread: bool,
}

impl Made {
    /// `value` is the kernel's: a negated error number, or a result.
    pub fn new(number: i64, args: [u64; 6], value: i64) -> Made {
        let result = match value {
            -4095..0 => Err(Errno::from_raw(-value as i32)),
            value => Ok(value as u64),
        };
        Made {
            number,
            args,
            passed: args,
            result,
            refused: false,
            in_new_thread: false,
        }
    }
}

/// The record of one case.
#[derive(Debug, Default)]
pub struct Record {
    /// By process name, like `lines`.
    spaces: BTreeMap<String, Space>,
    /// The number of mappings so far, and the id of the next one.
    mappings: usize,
    /// The end of the heap when the `watch` began.
    heap: u64,
    /// Process id → process name.
    names: BTreeMap<i32, String>,
    pub calls: Vec<Call>,
    pub ledger: Ledger,
    /// The lines of the transcript.
    lines: BTreeMap<String, Vec<Line>>,
    /// Whether anything was watched.
    pub watched: bool,
    /// The length of the first watched munmap of memory that had been unmapped already.
    pub unmapped_twice: Option<u64>,
    /// The length of the first watched mapping at a fixed address of which a part was not mapped.
    pub mapped_over: Option<u64>,
    /// What the body of the case has noted.
    pub notes: Vec<u64>,
    /// The number of the answer's calls in the window, by name.
    pub counts: BTreeMap<String, usize>,
}

impl Record {
    /// Begins a `watch`. The heap ends at `heap`.
    pub fn begin(&mut self, heap: u64) {
        self.watched = true;
        self.heap = heap;
    }

    pub fn space(&self, process: &str) -> Option<&Space> {
        self.spaces.get(process)
    }

    /// Records that `parent` has forked `child`, whose process id is `pid`.
    pub fn forked(&mut self, parent: &str, child: &str, pid: i32, watching: bool) {
        let space = self
            .spaces
            .get(parent)
            .map(Space::forked)
            .unwrap_or_default();
        self.spaces.insert(child.to_owned(), space);
        self.names.insert(pid, child.to_owned());
        if watching {
            self.push(parent, Line::default().text(format!("fork() = {child}")));
        }
    }

    /// Records an execve, which replaces the address space of `process`.
    pub fn executed(&mut self, process: &str) {
        self.spaces.insert(process.to_owned(), Space::default());
    }

    /// Records the end of the forked `process`.
    pub fn ended(&mut self, process: &str, end: Status) {
        let text = match end {
            Status::Exited(code) => format!("exit({code})"),
            Status::Signaled(signal) => format!("killed by {}", format::signal(signal)),
        };
        self.push(process, Line::default().text(text));
    }

    /// Records that the judge made a call of `process` fail which is not recorded otherwise.
    pub fn refused(&mut self, process: &str, call: &str, errno: Errno) {
        self.push(
            process,
            Line::default().text(format!("{call}() = {errno:?}{REFUSED}")),
        );
    }

    /// Records the state at the end of a `watch`.
    pub fn end(&mut self, descriptors: i64, children: usize) {
        if let Some(space) = self.spaces.get(FIRST) {
            self.ledger.look(space);
        }
        self.ledger.left(descriptors, children);
    }

    /// Records a call of `process`. If `watching`, it is one of the answer's calls in the watched part.
    pub fn call(&mut self, process: &str, watching: bool, made: Made) {
        let Made {
            number,
            args,
            passed,
            result,
            refused,
            ..
        } = made;
        let watching = watching && !self.is_on_signal_stack(process, &made);
        // Addresses are named before the call takes effect: munmap(A) names the mapping that it unmaps.
        let line = watching.then(|| self.arguments(process, number, passed));
        if watching && number == libc::SYS_munmap && result.is_ok() {
            self.look_for_second_unmap(process, args);
        }
        if watching && result.is_ok() {
            self.look_for_replacement(process, number, args);
        }
        // Such a range stays mapped, as it was before.
        let counts = number == libc::SYS_mmap && !self.replaces_earlier_memory(process, args);
        let outcome = match result {
            Ok(value) => self.apply(process, number, args, value),
            Err(_) => None,
        };
        if refused && number == libc::SYS_munmap && process == FIRST {
            let [start, len, ..] = args;
            self.ledger
                .excuse(start..start.saturating_add(whole_pages(len)));
        }
        let Some(line) = line else { return };
        if let Some(id) = outcome
            && process == FIRST
            && counts
        {
            self.ledger.open(id);
        }
        let mut line = self.with_result(line, process, number, args, result, outcome);
        if refused {
            line = line.text(REFUSED);
        }
        self.push(process, line);
        self.calls.push(Call {
            process: process.to_owned(),
            name: call::name(number),
            args: passed,
            result,
        });
    }

    /// Whether a call concerns the signal stack that std gives to each new thread.
    fn is_on_signal_stack(&self, process: &str, made: &Made) -> bool {
        let [start, _, _, flags, ..] = made.args;
        let space = self.spaces.get(process);
        made.in_new_thread
            && match made.number {
                libc::SYS_mmap => flags as i32 & libc::MAP_STACK != 0,
                libc::SYS_mprotect | libc::SYS_munmap => {
                    space.is_some_and(|space| space.at(start).is_some_and(|found| found.stack))
                }
                _ => false,
            }
    }

    /// Looks, before a munmap takes effect, whether the memory it names is unmapped and was mapped before.
    fn look_for_second_unmap(&mut self, process: &str, [start, len, ..]: [u64; 6]) {
        let range = start..start.saturating_add(whole_pages(len));
        let is_second = self.spaces.get(process).is_some_and(|space| {
            space.pieces(&range).next().is_none() && space.gone_at(start).is_some()
        });
        if is_second {
            self.unmapped_twice.get_or_insert(len);
        }
    }

    /// Whether MAP_FIXED is about to replace memory that the case has mapped before the `watch`, and nothing else.
    fn replaces_earlier_memory(&self, process: &str, args: [u64; 6]) -> bool {
        let [start, len, _, flags, ..] = args;
        let range = start..start.saturating_add(whole_pages(len));
        let earlier = self.spaces.get(process).map_or(0, |space| {
            let pieces = space.pieces(&range);
            pieces
                .filter(|(_, mapping)| !self.ledger.is_open(mapping.id))
                .map(|(piece, _)| piece.end - piece.start)
                .sum()
        });
        flags as i32 & libc::MAP_FIXED != 0 && earlier == range.end - range.start
    }

    /// Looks, before MAP_FIXED or MREMAP_FIXED takes effect, whether the case has mapped the whole range that it replaces.
    /// The heap of brk(2) belongs to the case as well.
    fn look_for_replacement(&mut self, process: &str, number: i64, args: [u64; 6]) {
        /// No heap of a case is larger.
        const MOST_OF_HEAP: u64 = 1 << 30;
        let [start, len, third, flags, target, ..] = args;
        let (start, len) = match number {
            libc::SYS_mmap if flags as i32 & libc::MAP_FIXED != 0 => (start, len),
            libc::SYS_mremap if flags as i32 & libc::MREMAP_FIXED != 0 => (target, third),
            _ => return,
        };
        let range = start..start.saturating_add(whole_pages(len));
        let mapped: u64 = self.spaces.get(process).map_or(0, |space| {
            let pieces = space.pieces(&range);
            pieces.map(|(piece, _)| piece.end - piece.start).sum()
        });
        if mapped < range.end - range.start && self.heap.abs_diff(start) > MOST_OF_HEAP {
            self.mapped_over.get_or_insert(len);
        }
    }

    /// Whether memory is still mapped where a munmap failed because its address was not at the start of a page.
    pub fn unaligned_unmap(&self) -> bool {
        self.calls.iter().any(|call| {
            let [start, len, ..] = call.args;
            call.name == "munmap"
                && call.process == FIRST
                && call.result == Err(Errno::EINVAL)
                && start != whole_pages(start)
                && self.spaces.get(FIRST).is_some_and(|space| {
                    let range = start..start.saturating_add(len);
                    !range.is_empty() && space.pieces(&range).next().is_some()
                })
        })
    }

    /// The transcript, one line per call, or `None` if nothing was watched.
    pub fn transcript(&self) -> Option<String> {
        self.watched.then(|| transcript::render(&self.lines))
    }

    fn push(&mut self, process: &str, line: Line) {
        self.lines.entry(process.to_owned()).or_default().push(line);
    }

    /// Changes the address space as the call did. Returns the id of the mapping that the call returned, if any.
    fn apply(&mut self, process: &str, number: i64, args: [u64; 6], value: u64) -> Option<usize> {
        let [start, len, third, flags, ..] = args;
        let end = start.saturating_add(whole_pages(len));
        let space = self.spaces.entry(process.to_owned()).or_default();
        let mut new_id = || {
            self.mappings += 1;
            self.mappings - 1
        };
        match number {
            libc::SYS_mmap => {
                let kind = flags as i32 & libc::MAP_TYPE;
                let id = new_id();
                space.map(Mapping {
                    id,
                    start: value,
                    len: whole_pages(len),
                    protection: third as i32,
                    shared: kind != libc::MAP_PRIVATE,
                    anonymous: flags as i32 & libc::MAP_ANONYMOUS != 0,
                    stack: flags as i32 & libc::MAP_STACK != 0,
                    object: whole_pages(len),
                    not_forked: false,
                });
                Some(id)
            }
            libc::SYS_munmap => {
                space.unmap(start..end);
                None
            }
            libc::SYS_mprotect => {
                space.protect(start..end, third as i32);
                None
            }
            libc::SYS_madvise => {
                if let advice @ (libc::MADV_DONTFORK | libc::MADV_DOFORK) = third as i32 {
                    space.keep_from_children(start..end, advice == libc::MADV_DONTFORK);
                }
                None
            }
            libc::SYS_mremap => {
                let old = space.at(start)?.clone();
                let keeps_old = len == 0 || flags as i32 & libc::MREMAP_DONTUNMAP != 0;
                let id = match keeps_old {
                    true => new_id(),
                    false => {
                        let how = if value == start {
                            Gone::CutOff
                        } else {
                            Gone::Moved
                        };
                        space.remove(start..end, how);
                        old.id
                    }
                };
                space.map(Mapping {
                    id,
                    start: value,
                    len: whole_pages(third),
                    ..old
                });
                Some(id)
            }
            _ => None,
        }
    }

    /// The call with its arguments.
    fn arguments(&self, process: &str, number: i64, args: [u64; 6]) -> Line {
        let [a, b, c, d, e, f] = args;
        let size = call::argument;
        let line = Line::default().text(format!("{}(", call::name(number)));
        let at = |line: Line| self.place(line, process, a);
        match number {
            libc::SYS_mmap => at(line).text(format!(
                ", {}, {}, {}, {}, off {})",
                size(b),
                call::protection(c),
                call::map_flags(d),
                call::descriptor(e),
                size(f)
            )),
            libc::SYS_mremap => at(line).text(format!(
                ", {}, {}, {})",
                size(b),
                size(c),
                call::remap_flags(d)
            )),
            libc::SYS_mprotect => at(line).text(format!(", {}, {})", size(b), call::protection(c))),
            libc::SYS_madvise => at(line).text(format!(", {}, {})", size(b), call::advice(c))),
            libc::SYS_brk => line.text(format!("{})", self.heap_relative(a))),
            libc::SYS_memfd_create => line.text("..)"),
            libc::SYS_ftruncate => line.text(format!("{}, {})", call::descriptor(a), size(b))),
            libc::SYS_wait4 => line.text(format!(
                "{}, {})",
                self.child(a as i32),
                call::wait_flags(c)
            )),
            libc::SYS_waitid => {
                let whom = match a as u32 {
                    libc::P_PID => self.child(b as i32),
                    _ => "any".to_owned(),
                };
                line.text(format!("{whom}, {})", call::wait_flags(d)))
            }
            _ => at(line).text(format!(", {})", size(b))),
        }
    }

    fn with_result(
        &self,
        line: Line,
        process: &str,
        number: i64,
        args: [u64; 6],
        result: Result<u64, Errno>,
        outcome: Option<usize>,
    ) -> Line {
        let line = line.text(" = ");
        let value = match (result, outcome) {
            (Err(error), _) => return line.text(format!("{error:?}")),
            // The kernel chooses where mremap moves a mapping, so the mapping keeps its letter.
            (Ok(_), Some(id)) => return line.place(id, 0),
            (Ok(value), None) => value,
        };
        match number {
            libc::SYS_mmap | libc::SYS_mremap => self.place(line, process, value),
            libc::SYS_brk => line.text(self.heap_relative(value)),
            libc::SYS_memfd_create => line.text(call::descriptor(value)),
            // It is not deterministic which child ends first.
            libc::SYS_wait4 if value != 0 && args[0] as i32 == -1 => line.text("a child"),
            libc::SYS_wait4 if value != 0 => line.text(self.child(value as i32)),
            _ => line.text(value.to_string()),
        }
    }

    /// The name of the child that a wait names.
    fn child(&self, pid: i32) -> String {
        match self.names.get(&pid) {
            Some(name) => name.clone(),
            None if pid == -1 => "any".to_owned(),
            None => "?".to_owned(),
        }
    }

    /// `address` as a place in a mapping, or `?`.
    fn place(&self, line: Line, process: &str, address: u64) -> Line {
        if address == 0 {
            return line.text("NULL");
        }
        let space = self.spaces.get(process);
        match space.and_then(|space| {
            space
                .at(address)
                .or_else(|| Some(space.gone_at(address)?.0))
        }) {
            Some(mapping) => line.place(mapping.id, address - mapping.start),
            None => line.text("?"),
        }
    }

    fn heap_relative(&self, address: u64) -> String {
        match address.checked_sub(self.heap) {
            _ if address == 0 => "NULL".to_owned(),
            Some(above) => format!("heap+{}", call::argument(above)),
            None => format!("heap-{}", call::argument(self.heap - address)),
        }
    }
}

/// Rounds `len` up to whole pages, as the kernel does.
fn whole_pages(len: u64) -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(1) as u64;
    len.checked_next_multiple_of(page)
        .unwrap_or(u64::MAX / page * page)
}
