//! Describes a signal that an instruction of the case caused, from the address space as it is at that moment.
//!
//! /proc/PID/maps says what is at the address. The recorded calls only explain it: an address space also changes by
//! calls that are not recorded.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use nix::libc;

use super::space::{Gone, Mapping, Space};
use crate::procfs::MapsLine;

/// How near to a mapping an address must be to count as an access past its end or before its start.
const NEAR: u64 = 64 << 10;
/// The largest guard below a stack: the kernel keeps 256 pages of 4 KiB free below a stack that grows.
const STACK_GUARD: u64 = 1 << 20;
/// The length of the longest instruction.
const INSTRUCTION: u64 = 16;

// Values of `si_code`: include/uapi/asm-generic/siginfo.h.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;

/// A signal before it is delivered, and the registers of the task that receives it.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    pub number: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
    /// The instruction pointer.
    pub instruction: u64,
    /// The stack pointer.
    pub stack: u64,
}

/// The explanation of a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub signal: i32,
    instruction: u64,
    pub place: Place,
}

/// What is at the address. Lengths and offsets are in bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A process sent the signal.
    Sent,
    /// The kernel reported no address, or the address space has changed since the access.
    Unknown,
    /// Null, or near it, where nothing is mapped.
    Null {
        offset: u64,
        access: Access,
    },
    /// Below the stack of the thread.
    StackOverflow,
    /// Where nothing is mapped any more.
    Gone {
        how: Gone,
        offset: u64,
        len: u64,
        access: Access,
    },
    /// Past the end of a mapping of the case, where nothing that can be accessed is mapped.
    PastEnd {
        by: u64,
        len: u64,
    },
    /// Before the start of a mapping of the case, where nothing that can be accessed is mapped.
    BeforeStart {
        by: u64,
        len: u64,
    },
    /// Where nothing is mapped, and no mapping of the case is near.
    Nowhere {
        access: Access,
    },
    /// In a mapping whose protection does not permit the access.
    Forbidden {
        access: Access,
        at: Mapped,
    },
    /// In a mapping whose protection key does not permit the access.
    ProtectionKey {
        at: Mapped,
    },
    /// In a mapping whose protection permits every access that this can have been.
    Guarded {
        at: Mapped,
    },
    /// In a mapping, past the end of the object behind it, which is `object` bytes long.
    PastObject {
        object: u64,
        offset: u64,
        anonymous: bool,
    },
    /// In a mapping of huge pages, none of which the kernel provided.
    NoHugePage {
        at: Mapped,
    },
    /// In a mapping whose page the kernel did not provide.
    NotProvided {
        at: Mapped,
    },
    Misaligned,
    /// In a page whose memory is marked as damaged.
    Damaged {
        at: Mapped,
    },
}

/// The kind of an access, as far as it is known: not every machine reports whether it was a read or a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Access {
    Unknown,
    Write,
    Execute,
}

/// A mapping in /proc/PID/maps, and the address in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// `rwxp`.
    pub permissions: String,
    pub name: String,
    /// The offset of the address in the mapping of the case that was recorded there, and the length of that mapping.
    pub inside: Option<(u64, u64)>,
}

impl Fault {
    /// Explains `signal`, which the task `tid` receives. Its calls have made `space`.
    pub fn new(tid: i32, signal: &Signal, space: &Space) -> Fault {
        let memory = matches!(signal.number, libc::SIGSEGV | libc::SIGBUS);
        let place = match signal.code {
            // kill(2), tgkill(2) and sigqueue(3) set a code of 0 or less.
            ..=0 => Place::Sent,
            libc::SI_KERNEL => Place::Unknown,
            _ if !memory => Place::Unknown,
            _ => match fs::read_to_string(format!("/proc/{tid}/maps")) {
                Ok(maps) => Scene::new(tid, signal, &maps, space).place(),
                Err(_) => Place::Unknown,
            },
        };
        Fault {
            signal: signal.number,
            instruction: signal.instruction,
            place,
        }
    }

    /// Whether `self`, which came after `earlier`, has the same cause: the kernel sends SIGSEGV without an address if
    /// the handler of a signal does not fit on the stack.
    pub fn repeats(&self, earlier: &Fault) -> bool {
        self.place == Place::Unknown && self.instruction == earlier.instruction
    }
}

/// What is known when a signal is explained.
struct Scene<'a> {
    tid: i32,
    signal: &'a Signal,
    lines: Vec<MapsLine<'a>>,
    space: &'a Space,
}

impl<'a> Scene<'a> {
    fn new(tid: i32, signal: &'a Signal, maps: &'a str, space: &'a Space) -> Scene<'a> {
        Scene {
            tid,
            signal,
            lines: maps.lines().filter_map(MapsLine::parse).collect(),
            space,
        }
    }

    fn place(&self) -> Place {
        let Signal { number, code, .. } = *self.signal;
        let address = self.signal.address;
        let line = self.line_at(address);
        match (number, code, line) {
            (libc::SIGBUS, BUS_ADRALN, _) => Place::Misaligned,
            (libc::SIGBUS, BUS_MCEERR_AR | BUS_MCEERR_AO, Some(line)) => Place::Damaged {
                at: self.mapped(line),
            },
            (libc::SIGBUS, BUS_ADRERR, Some(line)) => self.not_provided(line),
            (libc::SIGSEGV, _, _) if self.is_below_the_stack() => Place::StackOverflow,
            (libc::SIGSEGV, SEGV_MAPERR, None) => self.unmapped(),
            (libc::SIGSEGV, SEGV_MAPERR, Some(line)) => Place::Guarded {
                at: self.mapped(line),
            },
            (libc::SIGSEGV, SEGV_ACCERR, Some(line)) => self.forbidden(line),
            (libc::SIGSEGV, SEGV_PKUERR, Some(line)) if line.permissions.starts_with('r') => {
                Place::ProtectionKey {
                    at: self.mapped(line),
                }
            }
            (libc::SIGSEGV, SEGV_PKUERR, Some(line)) => self.forbidden(line),
            _ => Place::Unknown,
        }
    }

    fn line_at(&self, address: u64) -> Option<&MapsLine<'a>> {
        self.lines.iter().find(|line| line.range.contains(&address))
    }

    /// Whether the instruction at the address was fetched. One that begins on the page before may reach into it.
    fn executes(&self) -> bool {
        let address = self.signal.address;
        (address.saturating_sub(INSTRUCTION - 1)..=address).contains(&self.signal.instruction)
    }

    fn access(&self) -> Access {
        match self.executes() {
            true => Access::Execute,
            false => Access::Unknown,
        }
    }

    /// Whether the access was below the stack that the thread uses: near the stack pointer, in a guard or where nothing
    /// is mapped, and the next mapping upwards is the stack.
    fn is_below_the_stack(&self) -> bool {
        let Signal { address, stack, .. } = *self.signal;
        let accessible = |line: &&MapsLine| !line.permissions.starts_with("---");
        let above = self
            .lines
            .iter()
            .filter(accessible)
            .find(|line| line.range.end > address);
        above.is_some_and(|above| {
            let reach = above.range.start.saturating_sub(STACK_GUARD)..above.range.end;
            let outside = !above.range.contains(&address) || self.signal.code == SEGV_MAPERR;
            let stack_like = above.permissions.starts_with("rw");
            outside && stack_like && address.abs_diff(stack) <= NEAR && reach.contains(&stack)
        })
    }

    /// Nothing is mapped at the address.
    fn unmapped(&self) -> Place {
        let address = self.signal.address;
        let access = self.access();
        if address < NEAR {
            return Place::Null {
                offset: address,
                access,
            };
        }
        if let Some((mapping, how)) = self.space.gone_at(address) {
            return Place::Gone {
                how,
                offset: address - mapping.start,
                len: mapping.len,
                access,
            };
        }
        self.beside().unwrap_or(Place::Nowhere { access })
    }

    /// The mapping of the case beside the address.
    fn beside(&self) -> Option<Place> {
        let address = self.signal.address;
        // The record is right about an end only if the kernel maps the last byte before it, and nothing accessible
        // between it and the address.
        let mapped = |range: &Range<u64>, mapping: &Mapping, byte: u64| {
            let line = self.line_at(byte);
            range.contains(&byte) && line.is_some_and(|line| is_recorded(line, mapping))
        };
        let free = |range: Range<u64>| {
            let inside = |line: &MapsLine| {
                line.range.start < range.end
                    && range.start < line.range.end
                    && !line.permissions.starts_with("---")
            };
            !self.lines.iter().any(inside)
        };
        if let Some((range, mapping)) = self.space.ending_before(address, NEAR)
            && mapped(range, mapping, range.end - 1)
            && free(range.end..address + 1)
        {
            return Some(Place::PastEnd {
                by: address - range.end,
                len: mapping.len,
            });
        }
        if let Some((range, mapping)) = self.space.beginning_after(address, NEAR)
            && mapped(range, mapping, range.start)
            && free(address..range.start)
        {
            return Some(Place::BeforeStart {
                by: range.start - address,
                len: mapping.len,
            });
        }
        None
    }

    /// The protection of the mapping `line` does not permit the access.
    fn forbidden(&self, line: &MapsLine) -> Place {
        let at = self.mapped(line);
        let permissions = line.permissions.as_bytes();
        let access = match permissions {
            _ if self.executes() => Access::Execute,
            [b'r', ..] => Access::Write,
            _ => Access::Unknown,
        };
        let permitted = match access {
            Access::Execute => permissions[2] == b'x',
            Access::Write => permissions[1] == b'w',
            Access::Unknown => false,
        };
        if permitted {
            return Place::Unknown; // another thread has changed the protection since
        }
        // A guard that is not the case's own explains less than the case's own mapping beside it.
        if at.inside.is_none()
            && line.permissions.starts_with("---")
            && let Some(beside) = self.beside()
        {
            return beside;
        }
        Place::Forbidden { access, at }
    }

    fn mapped(&self, line: &MapsLine) -> Mapped {
        let address = self.signal.address;
        let recorded = self.space.at(address);
        Mapped {
            permissions: line.permissions.to_owned(),
            name: line.name.to_owned(),
            inside: recorded
                .filter(|mapping| is_recorded(line, mapping))
                .map(|mapping| (address - mapping.start, mapping.len)),
        }
    }

    /// The kernel has not provided the page of the mapping `line`.
    fn not_provided(&self, line: &MapsLine) -> Place {
        let offset = line.offset + (self.signal.address - line.range.start);
        let recorded = self
            .space
            .at(self.signal.address)
            .filter(|mapping| is_recorded(line, mapping));
        let huge = self.has_huge_pages(line);
        let anonymous = recorded.is_some_and(|mapping| mapping.anonymous);
        let object = match recorded {
            // The kernel rounds the length of a mapping of huge pages up to them.
            Some(mapping) if mapping.anonymous && huge => None,
            Some(mapping) if mapping.anonymous => mapping.shared.then_some(mapping.object),
            _ => self.object_size(line),
        };
        match object {
            Some(object) if offset >= object => Place::PastObject {
                object,
                offset,
                anonymous,
            },
            _ if huge => Place::NoHugePage {
                at: self.mapped(line),
            },
            _ => Place::NotProvided {
                at: self.mapped(line),
            },
        }
    }

    /// The size of the object behind `line`, if it can be looked up: by the mapping itself, which root may do, or by a
    /// descriptor of it that is still open.
    fn object_size(&self, line: &MapsLine) -> Option<u64> {
        let (tid, Range { start, end }) = (self.tid, line.range.clone());
        let is_it = |file: &fs::Metadata| file.ino() == line.inode && line.inode != 0;
        let by_mapping = fs::metadata(format!("/proc/{tid}/map_files/{start:x}-{end:x}"));
        if let Some(file) = by_mapping.ok().filter(is_it) {
            return Some(file.len());
        }
        let descriptors = fs::read_dir(format!("/proc/{tid}/fd")).ok()?;
        descriptors
            .flatten()
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .find(is_it)
            .map(|file| file.len())
    }

    fn has_huge_pages(&self, line: &MapsLine) -> bool {
        if line.name.starts_with("/anon_hugepage") {
            return true;
        }
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.tid)).unwrap_or_default();
        let mut inside = false;
        for text in smaps.lines() {
            if let Some(header) = MapsLine::parse(text) {
                inside = header.range == line.range;
            } else if inside && text.starts_with("VmFlags:") {
                return text.split_ascii_whitespace().any(|flag| flag == "ht");
            }
        }
        false
    }
}

/// Whether the kernel's mapping `line` can be the recorded `mapping`: calls that are not recorded may have replaced it.
fn is_recorded(line: &MapsLine, mapping: &Mapping) -> bool {
    let name = line.name;
    let huge = name.starts_with("/anon_hugepage");
    match (mapping.anonymous, mapping.shared) {
        (true, false) => name.is_empty() || name.starts_with("[anon:") || huge,
        (true, true) => name.starts_with("/dev/zero") || name.starts_with("[anon_shmem:") || huge,
        (false, _) => name.starts_with('/') && !name.starts_with("/SYSV"),
    }
}
