//! Overrides functions of libc for the code that is linked into this program: the answer, the crates that it uses, and
//! std. libc itself calls its own definitions.
//!
//! The memory functions make their system call from this program, so that the tracer can distinguish them from the
//! calls of libc's malloc and of its thread stacks. The `pthread_mutex` functions ask the tracer whether they shall fail,
//! because most of them make no system call. Without a tracer all functions here decide by themselves whether they fail.
//! `sysconf`, `getpagesize`, `clock_gettime`, `mincore` and the memory functions follow `pretend`. `failures` learns of memory
//! functions that fail.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::failures::{self, Arguments};
use super::{pretend, probe, steps, window};
use crate::protocol::Mark;

/// The address of the library's own definition of `name`, which one of the judge's overrides.
pub fn libc_function(cache: &AtomicUsize, name: &CStr) -> usize {
    let mut found = cache.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: the name is a C string, and RTLD_NEXT asks for the definition after this one.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.addr();
        cache.store(found, Ordering::Relaxed);
    }
    found
}

/// Calls libc's own definition of the function that is being overridden.
macro_rules! libc_definition {
    ($name:ident($($argument:ident: $type:ty),*) -> $result:ty) => {{
        type Real = unsafe extern "C" fn($($type),*) -> $result;
        static REAL: AtomicUsize = AtomicUsize::new(0);
        const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("a name ends with its only null byte"),
        };
        let real = libc_function(&REAL, NAME);
        // SAFETY: libc defines the function with this type; dlsym finds it, because this process is linked with libc.
        let real: Real = unsafe { std::mem::transmute(real) };
        // SAFETY: the caller's contract is the same.
        unsafe { real($($argument),*) }
    }};
}

/// `syscall` takes all arguments as `long`s.
fn long(argument: c_int) -> c_long {
    argument.into()
}

/// Overrides libc's `sysconf`.
///
/// # Safety
/// As for sysconf(3): any `name` may be asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysconf(name: c_int) -> c_long {
    if name == libc::_SC_PAGESIZE
        && let Some(bytes) = pretend::pretended()
    {
        return bytes as c_long;
    }
    libc_definition!(sysconf(name: c_int) -> c_long)
}

/// Overrides libc's `getpagesize`.
#[unsafe(no_mangle)]
pub extern "C" fn getpagesize() -> c_int {
    // SAFETY: any name may be asked for.
    unsafe { sysconf(libc::_SC_PAGESIZE) as c_int }
}

/// Overrides libc's `mmap`.
///
/// # Safety
/// As for mmap(2): with MAP_FIXED the range must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let arguments = Arguments::Len(len);
    if window::fails("mmap") {
        return std::ptr::with_exposed_provenance_mut(
            failures::note("mmap", arguments, -1) as usize
        );
    }
    let start = match start.is_null() {
        // A hint replaces no mapping.
        true => pretend::next_address(len).unwrap_or(start),
        false => start,
    };
    let len = rounded(start, len);
    // SAFETY: the caller's contract is the same.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            start,
            len,
            long(protection),
            long(flags),
            long(fd),
            offset,
        )
    };
    std::ptr::with_exposed_provenance_mut(failures::note("mmap", arguments, result) as usize)
}

/// The length that the kernel gets in place of `len`: with a pretended page size it reaches to the end of a page, because
/// a kernel with that page size would round it up. The tracer records `len`.
///
/// Such a kernel would refuse a `start` inside a page. This one does not, so the length stays as it is.
fn rounded(start: *mut c_void, len: usize) -> usize {
    let whole = pretend::pretended()
        .filter(|page| start.addr().is_multiple_of(*page))
        .and_then(|page| len.checked_next_multiple_of(page))
        .unwrap_or(len);
    if pretend::pretended().is_some() {
        window::mark(Mark::Length, len);
    }
    whole
}

/// Overrides libc's `mmap64`, which is the same as `mmap` on a 64-bit machine.
///
/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the caller's contract is the same.
    unsafe { mmap(start, len, protection, flags, fd, offset) }
}

/// Overrides libc's `munmap`.
///
/// # Safety
/// As for munmap(2): nothing may use the range any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(start: *mut c_void, len: usize) -> c_int {
    let arguments = Arguments::Len(len);
    if window::fails("munmap") {
        return failures::note("munmap", arguments, -1) as c_int;
    }
    let len = rounded(start, len);
    // SAFETY: the caller's contract is the same.
    let result = unsafe { libc::syscall(libc::SYS_munmap, start, len) };
    failures::note("munmap", arguments, result) as c_int
}

/// Overrides libc's `mremap`, which takes the new address as an optional argument. Both architectures pass optional
/// arguments like others.
///
/// # Safety
/// As for mremap(2): nothing may use the old range any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    start: *mut c_void,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new_start: *mut c_void,
) -> *mut c_void {
    let arguments = Arguments::TwoLens(old_len, new_len);
    if window::fails("mremap") {
        return std::ptr::with_exposed_provenance_mut(
            failures::note("mremap", arguments, -1) as usize
        );
    }
    let (old_len, new_len) = (rounded(start, old_len), rounded(start, new_len));
    // SAFETY: the caller's contract is the same. The kernel ignores the new address unless a flag says otherwise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mremap,
            start,
            old_len,
            new_len,
            long(flags),
            new_start,
        )
    };
    std::ptr::with_exposed_provenance_mut(failures::note("mremap", arguments, result) as usize)
}

/// Overrides libc's `mprotect`.
///
/// # Safety
/// As for mprotect(2): the range may only be accessed as the new protection permits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mprotect(start: *mut c_void, len: usize, protection: c_int) -> c_int {
    let arguments = Arguments::Len(len);
    if len > 0 && window::fails("mprotect") {
        return failures::note("mprotect", arguments, -1) as c_int;
    }
    let len = rounded(start, len);
    // SAFETY: the caller's contract is the same.
    let result = unsafe { libc::syscall(libc::SYS_mprotect, start, len, long(protection)) };
    failures::note("mprotect", arguments, result) as c_int
}

/// Overrides libc's `madvise`.
///
/// # Safety
/// As for madvise(2): some advice discards the contents of the range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int {
    let arguments = Arguments::Advice(len, advice);
    if len > 0 && window::fails("madvise") {
        return failures::note("madvise", arguments, -1) as c_int;
    }
    let len = rounded(start, len);
    // SAFETY: the caller's contract is the same.
    let result = unsafe { libc::syscall(libc::SYS_madvise, start, len, long(advice)) };
    failures::note("madvise", arguments, result) as c_int
}

/// Overrides libc's `mincore`, which writes a byte for each page: no more of them than a kernel with the pretended page size
/// would write.
///
/// # Safety
/// As for mincore(2): `vector` has room for a byte for each page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mincore(start: *mut c_void, len: usize, vector: *mut u8) -> c_int {
    let Some(page) = pretend::pretended() else {
        // SAFETY: the caller's contract is the same.
        let result = unsafe { libc::syscall(libc::SYS_mincore, start, len, vector) };
        if result == 0 && pretend::swaps_out() {
            // SAFETY: the kernel has written that many bytes.
            unsafe { vector.write_bytes(0, len.div_ceil(probe::page_size())) };
        }
        return result as c_int;
    };
    for index in 0..len.div_ceil(page) {
        let Some(resident) = is_resident(start.wrapping_byte_add(index * page), page) else {
            return -1;
        };
        // SAFETY: the caller's contract.
        let byte = unsafe { vector.add(index) };
        // SAFETY: as above.
        unsafe { byte.write(u8::from(resident && !pretend::swaps_out())) };
    }
    0
}

/// Whether all of the kernel's pages in the range are resident. `None` if mincore fails.
fn is_resident(start: *mut c_void, len: usize) -> Option<bool> {
    let mut resident = [0u8; 1024];
    let step = resident.len() * probe::page_size();
    for offset in (0..len).step_by(step) {
        let part = step.min(len - offset);
        // SAFETY: mincore accesses no memory but its vector, which has a byte for each page of the part.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mincore,
                start.wrapping_byte_add(offset),
                part,
                resident.as_mut_ptr(),
            )
        };
        Errno::result(result).ok()?;
        let pages = part.div_ceil(probe::page_size());
        if resident[..pages].iter().any(|page| page & 1 == 0) {
            return Some(false);
        }
    }
    Some(true)
}

/// Overrides libc's `write`. After output to a terminal errno may have changed, although it succeeded: errno(3) names a
/// message before the look at errno as a common mistake. Here errno changes each time.
///
/// # Safety
/// As for write(2): `len` bytes at `buffer` are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's contract is the same.
    let written = unsafe { libc::syscall(libc::SYS_write, long(fd), buffer, len) };
    if written >= 0 && [libc::STDOUT_FILENO, libc::STDERR_FILENO].contains(&fd) {
        failures::note_output();
    }
    written as isize
}

/// How often this process has closed a descriptor that was not open.
static BAD_CLOSES: AtomicUsize = AtomicUsize::new(0);

/// Returns how often this process has closed a descriptor that was not open.
pub fn bad_closes() -> usize {
    BAD_CLOSES.load(Ordering::Relaxed)
}

/// Overrides libc's `close`.
///
/// # Safety
/// As for close(2): nothing else uses the descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    // SAFETY: the caller's contract is the same.
    let result = unsafe { libc::syscall(libc::SYS_close, long(fd)) };
    // A negative number is never a descriptor, so that closing it can do no harm.
    if result == -1 && fd >= 0 && Errno::last() == Errno::EBADF {
        BAD_CLOSES.fetch_add(1, Ordering::Relaxed);
    }
    result as c_int
}

/// Overrides libc's `fork`.
///
/// # Safety
/// As for fork(2): the child of a process with several threads may only call async-signal-safe functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> libc::pid_t {
    if window::fails("fork") {
        return -1;
    }
    // A thread that is stopped in it would hold malloc's locks, for which the case would wait.
    steps::pass(|| libc_definition!(fork() -> libc::pid_t))
}

/// Overrides libc's `waitpid`, whose system call is `wait4`.
///
/// # Safety
/// As for waitpid(2): `status` is null or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitpid(
    pid: libc::pid_t,
    status: *mut c_int,
    options: c_int,
) -> libc::pid_t {
    if window::fails("wait4") {
        return -1;
    }
    let waited = libc_definition!(
        waitpid(pid: libc::pid_t, status: *mut c_int, options: c_int) -> libc::pid_t
    );
    if waited > 0 && !status.is_null() {
        // SAFETY: the caller's pointer is valid, and libc has written to it.
        pretend::add_core_dump(unsafe { &mut *status });
    }
    waited
}

/// Overrides libc's `waitid`.
///
/// # Safety
/// As for waitid(2): `info` is null or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitid(
    kind: libc::idtype_t,
    id: libc::id_t,
    info: *mut libc::siginfo_t,
    options: c_int,
) -> c_int {
    if window::fails("waitid") {
        return -1;
    }
    let result = libc_definition!(
        waitid(kind: libc::idtype_t, id: libc::id_t, info: *mut libc::siginfo_t, options: c_int) -> c_int
    );
    if result == 0 && !info.is_null() {
        // SAFETY: the caller's pointer is valid, and libc has written to it.
        pretend::add_core_dump_to_info(unsafe { &mut *info });
    }
    result
}

/// Overrides libc's `brk`. libc must make the call itself, because it keeps the address of the break.
///
/// # Safety
/// As for brk(2): the break belongs to malloc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn brk(end: *mut c_void) -> c_int {
    window::mark(Mark::Brk, 0);
    libc_definition!(brk(end: *mut c_void) -> c_int)
}

/// Overrides libc's `sbrk`, as `brk`.
///
/// # Safety
/// As for sbrk(2): the break belongs to malloc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sbrk(increment: libc::intptr_t) -> *mut c_void {
    if increment != 0 {
        window::mark(Mark::Brk, 0);
    }
    libc_definition!(sbrk(increment: libc::intptr_t) -> *mut c_void)
}

/// Overrides `pthread` functions that return an error number.
macro_rules! pthread {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        /// The overridden functions. A mark names one by its index.
        pub const PTHREAD: &[&str] =
            &["pthread_mutex_init", "pthread_mutex_unlock", $(stringify!($name)),*];
        $(
            /// Overrides libc's function of this name.
            ///
            /// # Safety
            /// As for libc's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
                match window::refused(stringify!($name)) {
                    Some(error) => error,
                    None => libc_definition!($name($($argument: $type),*) -> c_int),
                }
            }
        )*
    };
}

type Attributes = *mut libc::pthread_mutexattr_t;
type Mutex = *mut libc::pthread_mutex_t;

pthread! {
    pthread_mutexattr_init(attributes: Attributes);
    pthread_mutexattr_destroy(attributes: Attributes);
    pthread_mutexattr_setpshared(attributes: Attributes, shared: c_int);
    pthread_mutexattr_settype(attributes: Attributes, kind: c_int);
    pthread_mutexattr_setrobust(attributes: Attributes, robust: c_int);
    pthread_mutexattr_setprotocol(attributes: Attributes, protocol: c_int);
    pthread_mutex_destroy(mutex: Mutex);
    pthread_mutex_lock(mutex: Mutex);
    pthread_mutex_trylock(mutex: Mutex);
    pthread_mutex_timedlock(mutex: Mutex, until: *const libc::timespec);
    pthread_mutex_clocklock(mutex: Mutex, clock: libc::clockid_t, until: *const libc::timespec);
    pthread_mutex_consistent(mutex: Mutex);
}

/// The addresses of the first mutexes that were initialised.
static INITIALISED: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
/// How many mutexes were initialised.
static INITIALISATIONS: AtomicUsize = AtomicUsize::new(0);
/// The address of the last mutex that was unlocked and never initialised, or 0.
static NOT_INITIALISED: AtomicUsize = AtomicUsize::new(0);

/// Returns the addresses of the mutexes that were initialised.
pub fn initialised_mutexes() -> impl Iterator<Item = *const u8> {
    INITIALISED.iter().filter_map(address)
}

/// Returns the address of a mutex that was unlocked, although none was initialised at this address.
pub fn uninitialised_mutex() -> Option<*const u8> {
    address(&NOT_INITIALISED)
}

/// The address of the last mutex that was initialised for one process only, or 0.
static PROCESS_PRIVATE: AtomicUsize = AtomicUsize::new(0);

/// Returns the address of the last mutex that was initialised without PTHREAD_PROCESS_SHARED.
pub fn process_private_mutex() -> Option<*const u8> {
    address(&PROCESS_PRIVATE)
}

/// The address in a static, unless it is 0.
fn address(mutex: &AtomicUsize) -> Option<*const u8> {
    match mutex.load(Ordering::Relaxed) {
        0 => None,
        mutex => Some(std::ptr::without_provenance(mutex)),
    }
}

/// Overrides libc's function of this name.
///
/// # Safety
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_init(
    mutex: Mutex,
    attributes: *const libc::pthread_mutexattr_t,
) -> c_int {
    if let Some(error) = window::refused("pthread_mutex_init") {
        return error;
    }
    let mut shared = libc::PTHREAD_PROCESS_PRIVATE;
    if !attributes.is_null() {
        // SAFETY: the caller's contract: the attributes are initialised.
        unsafe { libc::pthread_mutexattr_getpshared(attributes, &raw mut shared) };
    }
    if shared == libc::PTHREAD_PROCESS_PRIVATE {
        PROCESS_PRIVATE.store(mutex.addr(), Ordering::Relaxed);
    }
    let earlier = INITIALISATIONS.fetch_add(1, Ordering::Relaxed);
    if let Some(place) = INITIALISED.get(earlier) {
        place.store(mutex.addr(), Ordering::Relaxed);
    }
    libc_definition!(pthread_mutex_init(mutex: Mutex, attributes: *const libc::pthread_mutexattr_t) -> c_int)
}

/// Overrides libc's function of this name.
///
/// # Safety
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: Mutex) -> c_int {
    if let Some(error) = window::refused("pthread_mutex_unlock") {
        return error;
    }
    let knows_all = INITIALISATIONS.load(Ordering::Relaxed) <= INITIALISED.len();
    if knows_all && initialised_mutexes().all(|initialised| initialised.addr() != mutex.addr()) {
        NOT_INITIALISED.store(mutex.addr(), Ordering::Relaxed);
    }
    libc_definition!(pthread_mutex_unlock(mutex: Mutex) -> c_int)
}

/// Overrides libc's `clock_gettime`.
///
/// # Safety
/// As for clock_gettime(2): `time` is valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let result = libc_definition!(
        clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int
    );
    if result == 0 {
        // SAFETY: the caller's pointer is valid, and libc has written to it.
        pretend::advance(unsafe { &mut *time });
    }
    result
}
