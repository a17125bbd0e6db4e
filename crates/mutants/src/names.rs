//! Replaces a constant or a function by another one.

use syn::Path;

use super::{Collector, range};

/// A name, and what it is replaced by.
const CONSTANTS: [(&str, &[&str]); 19] = [
    ("MAP_PRIVATE", &["MAP_SHARED"]),
    ("MAP_SHARED", &["MAP_PRIVATE"]),
    ("PROT_NONE", &["PROT_READ"]),
    (
        "MADV_POPULATE_WRITE",
        &["MADV_POPULATE_READ", "MADV_WILLNEED"],
    ),
    ("MADV_DONTNEED", &["MADV_COLD"]),
    ("PTHREAD_PROCESS_SHARED", &["PTHREAD_PROCESS_PRIVATE"]),
    (
        "PTHREAD_MUTEX_ERRORCHECK",
        &["PTHREAD_MUTEX_NORMAL", "PTHREAD_MUTEX_RECURSIVE"],
    ),
    ("PTHREAD_MUTEX_ROBUST", &["PTHREAD_MUTEX_STALLED"]),
    ("EAGAIN", &["EINTR"]),
    ("EDEADLK", &["EBUSY"]),
    ("EINTR", &["EAGAIN"]),
    ("EINVAL", &["ENOMEM"]),
    ("ENOMEM", &["EINVAL"]),
    ("ENOSYS", &["EINVAL"]),
    ("EOWNERDEAD", &["ENOTRECOVERABLE"]),
    ("InvalidInput", &["OutOfMemory"]),
    ("Interrupted", &["WouldBlock"]),
    ("OutOfMemory", &["InvalidInput"]),
    // Functions that end the process.
    ("_exit", &["exit"]),
];

/// Methods that are replaced by their counterpart.
pub const METHODS: [(&str, &str); 14] = [
    ("checked_sub", "checked_add"),
    ("fetch_add", "fetch_sub"),
    ("fetch_max", "swap"),
    ("fetch_sub", "fetch_add"),
    ("is_err", "is_ok"),
    ("is_none", "is_some"),
    ("is_ok", "is_err"),
    ("is_some", "is_none"),
    ("read_volatile", "read"),
    ("wrapping_add", "wrapping_sub"),
    ("wrapping_byte_add", "wrapping_byte_sub"),
    ("wrapping_byte_sub", "wrapping_byte_add"),
    ("wrapping_sub", "wrapping_add"),
    ("write_volatile", "write"),
];

impl Collector<'_> {
    pub fn change_name(&mut self, path: &Path) {
        let Some(last) = path.segments.last() else {
            return;
        };
        let others = CONSTANTS.iter().find(|(name, _)| last.ident == name);
        for other in others.map_or(&[][..], |(_, others)| others) {
            let what = format!("replace {} by `{other}`", self.quoted(range(path)));
            self.add(range(&last.ident), *other, what);
        }
    }
}
