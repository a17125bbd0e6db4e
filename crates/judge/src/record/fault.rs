//! Says what was at the address that a process was not allowed to touch.

use std::fs;

use nix::libc;

use crate::record::space::Space;

/// How near to a mapping an address must be to count as "just past its end": one step of an index gone wrong.
const NEAR: u64 = 64 << 10;

/// A fault that the kernel answered with a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub signal: i32,
    pub address: u64,
    pub place: Place,
}

/// What was at the address. Lengths and offsets are in bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// Null, or a small offset from it.
    Null { offset: u64 },
    /// In a mapping that the case had unmapped.
    Unmapped { offset: u64, len: u64 },
    /// Past the end of a mapping of the case.
    PastEnd { by: u64, len: u64 },
    /// Before the start of one.
    BeforeStart { by: u64, len: u64 },
    /// In a mapping of the case without write access.
    ReadOnly { offset: u64, len: u64 },
    /// In a mapping of the case without any access.
    NoAccess { offset: u64, len: u64 },
    /// In a mapping of the case, past the end of the file behind it.
    PastObject { offset: u64, len: u64 },
    /// In something that the case did not map: its permissions and name in /proc/PID/maps.
    Foreign { permissions: String, name: String },
    /// Nothing is near.
    Nowhere,
    /// The signal names no address: it was sent, or the instruction itself was at fault.
    NoAddress,
}

impl Fault {
    /// The fault of task `tid`, whose address space is `space`.
    pub fn new(tid: i32, signal: i32, code: i32, address: u64, space: &Space) -> Fault {
        // A code of 0 or less is a signal that someone sent (kill(2), tgkill(2)): there is no address.
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
    // Where nothing may be touched, what lies beside it tells more.
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

/// What /proc says of an address that no call of the case has mapped: program, libraries, heap, stack.
fn foreign(tid: i32, address: u64) -> Option<Place> {
    let maps = fs::read_to_string(format!("/proc/{tid}/maps")).ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let inside = (hex(start)?..hex(end)?).contains(&address);
        inside.then(|| Place::Foreign {
            permissions: permissions.to_owned(),
            name: fields.nth(3).unwrap_or("without a name").to_owned(),
        })
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
