//! Describes the address of an access that the kernel answered with a signal.

use std::fs;

use nix::libc;

use super::space::Space;
use crate::procfs::MapsLine;

/// How near to a mapping an address must be to count as an access past its end or before its start.
const NEAR: u64 = 64 << 10;

/// An access that the kernel answered with a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub signal: i32,
    pub address: u64,
    pub place: Place,
}

/// What is at the address. Lengths and offsets are in bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// Null, or near it.
    Null { offset: u64 },
    /// In a mapping that the case has unmapped.
    Unmapped { offset: u64, len: u64 },
    /// Past the end of a mapping of the case.
    PastEnd { by: u64, len: u64 },
    /// Before the start of a mapping of the case.
    BeforeStart { by: u64, len: u64 },
    /// In a mapping of the case without write access.
    ReadOnly { offset: u64, len: u64 },
    /// In a mapping of the case without any access.
    NoAccess { offset: u64, len: u64 },
    /// In a mapping of the case, past the end of the file behind it.
    PastObject { offset: u64, len: u64 },
    /// In a mapping that no watched call made: its permissions and name in /proc/PID/maps.
    Foreign { permissions: String, name: String },
    /// No mapping is near.
    Nowhere,
    /// The signal has no address: a process sent it, or an instruction other than an access caused it.
    NoAddress,
}

impl Fault {
    /// The fault of the task `tid`, whose address space is `space`. `code` is the signal's `si_code`.
    pub fn new(tid: i32, signal: i32, code: i32, address: u64, space: &Space) -> Fault {
        // A code of 0 or less means that a process sent the signal (kill(2), tgkill(2)).
        let sent = code <= 0 || code == libc::SI_KERNEL;
        let memory = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
        let place = match sent || !memory {
            true => Place::NoAddress,
            false => place(tid, signal, address, space),
        };
        Fault {
            signal,
            address,
            place,
        }
    }
}

fn place(tid: i32, signal: i32, address: u64, space: &Space) -> Place {
    if address < NEAR {
        return Place::Null { offset: address };
    }
    if let Some(mapping) = space.at(address) {
        let (offset, len) = (address - mapping.start, mapping.len);
        return match mapping.protection {
            _ if signal == libc::SIGBUS => Place::PastObject { offset, len },
            libc::PROT_NONE => Place::NoAccess { offset, len },
            _ => Place::ReadOnly { offset, len },
        };
    }
    if let Some(mapping) = space.gone_at(address) {
        return Place::Unmapped {
            offset: address - mapping.start,
            len: mapping.len,
        };
    }
    let foreign = foreign(tid, address);
    let is_guard = matches!(&foreign, Some(Place::Foreign { permissions, .. }) if permissions.starts_with("---"));
    // A foreign guard explains less than the case's own mapping beside it.
    if let Some(foreign) = &foreign
        && !is_guard
    {
        return foreign.clone();
    }
    if let Some((mapping, by)) = space.ending_before(address, NEAR) {
        return Place::PastEnd {
            by,
            len: mapping.len,
        };
    }
    if let Some((mapping, by)) = space.beginning_after(address, NEAR) {
        return Place::BeforeStart {
            by,
            len: mapping.len,
        };
    }
    foreign.unwrap_or(Place::Nowhere)
}

/// The mapping in /proc/PID/maps at an address that no call of the case has mapped: program, libraries, heap, stack.
fn foreign(tid: i32, address: u64) -> Option<Place> {
    let maps = fs::read_to_string(format!("/proc/{tid}/maps")).ok()?;
    let mut lines = maps.lines().filter_map(MapsLine::parse);
    let line = lines.find(|line| line.range.contains(&address))?;
    Some(Place::Foreign {
        permissions: line.permissions.to_owned(),
        name: match line.name {
            "" => "without a name".to_owned(),
            name => name.to_owned(),
        },
    })
}
