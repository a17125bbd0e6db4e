//! Stage 2: a `Shared<T>` that owns its mapping.

use std::io::ErrorKind;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr::null_mut;

use judge::probe::{
    Kind, expect_no_heap_kept, expect_plain, in_one_mapping, mapped_pages, page_size, permissions,
    resident_pages,
};
use judge::{Limits, Neighbours, Spacer, case_with, in_child, pretend};
use nix::libc;

use super::*;

/// A shared array of bytes, whatever its size and alignment.
pub trait Bytes {
    fn bytes(&self) -> &[AtomicU8];

    /// Calls the answer's `run_child`.
    fn run(&self, f: &dyn Fn(&[AtomicU8])) -> io::Result<()>;
}

/// A size with its alignment and its name, and a function that makes a new value of that size.
pub struct Size {
    pub len: usize,
    alignment: usize,
    pub name: &'static str,
    pub new: fn() -> Box<dyn Bytes>,
}

macro_rules! sizes {
    ($($size:expr; $name:literal,)* $(struct $aligned:ident: $alignment:literal; $both:literal,)*) => {
        $(impl Bytes for Shared<[AtomicU8; { $size }]> {
            fn bytes(&self) -> &[AtomicU8] {
                &**self
            }

            fn run(&self, f: &dyn Fn(&[AtomicU8])) -> io::Result<()> {
                // SAFETY: as in `child::run`.
                unsafe { self.run_child(|bytes| f(bytes)) }
            }
        })*
        $(
            /// Two pages of a machine whose pages have this size.
            #[repr(C, align($alignment))]
            struct $aligned([AtomicU8; 2 * $alignment]);

            impl Bytes for Shared<MaybeUninit<$aligned>> {
                fn bytes(&self) -> &[AtomicU8] {
                    // SAFETY: the kernel has zeroed the bytes.
                    &unsafe { (**self).assume_init_ref() }.0
                }

                fn run(&self, f: &dyn Fn(&[AtomicU8])) -> io::Result<()> {
                    // SAFETY: as in `bytes`.
                    let f = |value: &MaybeUninit<$aligned>| f(&unsafe { value.assume_init_ref() }.0);
                    // SAFETY: as in `child::run`.
                    unsafe { self.run_child(f) }
                }
            }
        )*
        const SIZES: &[Size] = &[
            $(Size {
                len: $size,
                alignment: 1,
                name: $name,
                new: || Box::new(new!([AtomicU8; { $size }])),
            },)*
            $(Size {
                len: size_of::<$aligned>(),
                alignment: align_of::<$aligned>(),
                name: $both,
                new: || Box::new(new!(MaybeUninit<$aligned>)),
            },)*
        ];
    };
}

sizes! {
    (64 << 10) + 1; "64 KiB and 1 byte",
    1; "1 byte",
    (4 << 10) - 1; "4 KiB less 1 byte",
    4 << 10; "4 KiB",
    (4 << 10) + 1; "4 KiB and 1 byte",
    64 << 10; "64 KiB",
    200_000; "200,000 bytes",
    struct TwoOf4KiB: 0x1000; "8 KiB, aligned to 4 KiB",
    struct TwoOf16KiB: 0x4000; "32 KiB, aligned to 16 KiB",
    struct TwoOf64KiB: 0x10000; "128 KiB, aligned to 64 KiB",
}

/// Sizes at which rounding to pages goes wrong, for pages of 4 KiB and of 64 KiB, and a type that is aligned to a page.
pub fn sizes() -> impl Iterator<Item = &'static Size> {
    SIZES
        .iter()
        .filter(|size| [1, page_size()].contains(&size.alignment))
}

/// Not a multiple of any page size.
const ODD: usize = (64 << 10) + 1;

/// More bytes than a `u32` counts, and a multiple of every page size.
const OVER_4_GIB: usize = (4 << 30) + (64 << 10);

/// The byte that `fill` writes at this offset. It is never 0, and no two neighbouring pages are alike.
fn pattern(offset: usize, salt: u8) -> u8 {
    (offset % 251) as u8 % 127 + 1 + salt
}

/// Writes a pattern at both ends of each 512 bytes. `salt` distinguishes one pattern from another; it is 0 or 100.
pub fn fill(bytes: &[AtomicU8], salt: u8) {
    for offset in offsets(bytes.len()) {
        bytes[offset].store(pattern(offset, salt), SeqCst);
    }
}

/// Whether the bytes are those that `fill` has written.
pub fn is_filled(bytes: &[AtomicU8], salt: u8) -> bool {
    offsets(bytes.len()).all(|offset| bytes[offset].load(SeqCst) == pattern(offset, salt))
}

fn offsets(len: usize) -> impl Iterator<Item = usize> {
    let blocks = (0..len).step_by(512);
    blocks.flat_map(move |start| [start, (start + 511).min(len - 1)])
}

/// The address of a shared value. An answer may have methods of its own, also with the names of the value's methods, so the
/// graders call none on the `Shared` itself.
fn start_of<S: Deref>(value: &S) -> *const u8 {
    (&raw const **value).cast()
}

/// The number of pages in which the `len` bytes at `start` are. They need not begin where a page begins.
fn pages(start: *const u8, len: usize) -> usize {
    (start.addr() % page_size() + len).div_ceil(page_size())
}

#[test]
fn ignores_an_earlier_errno() {
    case(|| {
        expect_ok_whatever_errno("Shared::new()", || Shared::<Numbers>::new().map(drop));
    })
}

#[test]
fn zeroed() {
    case(|| {
        for _ in 0..2 {
            for Size { name, new, .. } in sizes() {
                let value = new();
                let bytes = value.bytes();
                expect_mapped(start_of(&bytes), bytes.len(), name);
                if let Some(offset) = bytes.iter().position(|byte| byte.load(SeqCst) != 0) {
                    judge::fail(format!(
                        "Byte {offset} of a new value of {name} is {}; expected 0. Map new memory for each value: the \
                         kernel zeroes every page that it maps.",
                        bytes[offset].load(SeqCst)
                    ));
                }
                fill(bytes, 0);
            }
        }
    })
}

/// Fails the case unless all of a value's pages are mapped.
fn expect_mapped(start: *const u8, len: usize, name: &str) {
    let mapped = mapped_pages(start, len);
    check!(
        mapped > 0,
        "Nothing is mapped at the address of a value of {name}. Check mmap's result, and keep the mapping until Drop."
    );
    check!(
        // What is mapped after the value's first page may belong to something else.
        mapped == pages(start, len) && in_one_mapping(start, len),
        "Only a part of a value of {name} is mapped; expected all of it. Pass size_of::<T>() to mmap."
    );
}

#[test]
fn shared_and_not_executable() {
    case(|| {
        for Size { len, name, new, .. } in sizes() {
            let value = new();
            let start: *const u8 = value.bytes().as_ptr().cast();
            let first = permissions(start);
            check!(
                first.read && first.write,
                "The value is not mapped readable and writable. Pass PROT_READ | PROT_WRITE."
            );
            check!(
                !first.execute,
                "The value is mapped with execute permission. Leave out PROT_EXEC."
            );
            check!(
                first.shared,
                "The value is in private memory, of which a child gets a copy. Map it with MAP_SHARED."
            );
            expect_mapped(start, *len, name);
            expect_plain("The value", start, *len, Kind::Shared);
        }
    })
}

#[test]
fn never_on_the_stack() {
    // An answer may map more than the value.
    case_with(file_limit(128 << 20), || {
        // 64 MiB does not fit on a thread's stack.
        let bytes = new!([AtomicU8; 64 << 20]);
        let start = start_of(&bytes);
        let resident = resident_pages(start, 64 << 20);
        check!(
            resident == 0,
            "Before the first access to a new value of 64 MiB, {resident} of its pages are resident; expected 0. Do \
             not write the value: the kernel has zeroed it."
        );
        bytes[(64 << 20) - 1].store(1, SeqCst);
    })
}

#[test]
fn not_resident_before_the_first_access() {
    case(|| {
        for Size { len, name, new, .. } in sizes() {
            expect_not_resident(new().bytes().as_ptr().cast(), *len, name);
        }
        expect_not_resident(start_of(&new!([AtomicU64; 0])), 1, "0 bytes");
        expect_not_resident(start_of(&new!(Numbers)), size_of::<Numbers>(), "512 KiB");
        let mib = 1 << 20;
        expect_not_resident(start_of(&new!([AtomicU8; 1 << 20])), mib, "1 MiB");
        expect_not_resident(start_of(&new!([AtomicU8; 2 << 20])), 2 * mib, "2 MiB");
        expect_not_resident(start_of(&new!([AtomicU8; 16 << 20])), 16 * mib, "16 MiB");
    })
}

fn expect_not_resident(start: *const u8, len: usize, name: &str) {
    check!(
        resident_pages(start, len) == 0,
        "A page of a new value of {name} is resident before the first access to it; expected none. Leave out MAP_POPULATE, and \
         do not access the value."
    );
}

#[test]
fn a_childs_writes_arrive() {
    case(|| {
        for Size { name, new, .. } in sizes() {
            let value = new();
            fill(value.bytes(), 0);
            let code = in_child(|| {
                let arrived = is_filled(value.bytes(), 0);
                fill(value.bytes(), 100);
                u8::from(!arrived)
            });
            check!(
                code == 0,
                "A child does not read the bytes that its parent wrote to a value of {name} before the fork. Map the \
                 whole value with MAP_SHARED."
            );
            check!(
                is_filled(value.bytes(), 100),
                "A child wrote to a value of {name}, and its parent does not see all of it. Map the whole value with \
                 MAP_SHARED."
            );
        }
    })
}

#[test]
fn independent() {
    case(|| {
        for Size { name, new, .. } in sizes() {
            let [first, second, third] = [new(), new(), new()];
            fill(first.bytes(), 0);
            fill(second.bytes(), 100);
            check!(
                is_filled(first.bytes(), 0),
                "A write to one value of {name} changed another one. Each value needs a separate mapping."
            );
            // The youngest one first, then the oldest one: no order of drops may matter.
            for (dropped, name) in [(third, name), (first, name)] {
                drop(dropped);
                let start = second.bytes().as_ptr().cast();
                let len = second.bytes().len();
                check!(
                    mapped_pages(start, len) == pages(start, len) && is_filled(second.bytes(), 100),
                    "A value of {name} was dropped, and another one lost pages or contents. Unmap only the value's own \
                     mapping."
                );
            }
        }
    })
}

#[test]
fn many() {
    case(|| {
        /// More than a table of a usual size has room for.
        const COUNT: usize = 1100;
        const STRIDE: usize = 7;
        /// What the limit on descriptors permits at least, if each value keeps one open.
        const WITH_DESCRIPTORS: usize = 900;
        let mut values = Vec::new();
        while values.len() < COUNT {
            let value = Shared::<[AtomicU64; 1]>::new();
            let error = value.as_ref().err().and_then(io::Error::raw_os_error);
            if error == Some(Errno::EMFILE as i32) && values.len() > WITH_DESCRIPTORS {
                break;
            }
            values.push(Some(made(value)));
        }
        let mut count = values.len();
        if count.is_multiple_of(STRIDE) {
            values.pop();
            count -= 1;
        }
        for (number, value) in values.iter().flatten().enumerate() {
            value[0].store(number as u64, SeqCst);
        }
        // No factor in common, so that each value has its turn, in an order that is neither theirs nor its reverse.
        for turn in 0..count {
            let number = turn * STRIDE % count;
            let value = values[number].take().expect("each has one turn");
            check!(
                value[0].load(SeqCst) == number as u64,
                "Of {count} values, {turn} were dropped, and another one changed. Unmap only the value's own mapping."
            );
        }
    })
}

#[test]
fn without_standard_input() {
    case(|| {
        close_standard_input();
        let value = match Shared::<[AtomicU8; ODD]>::new() {
            Ok(value) => value,
            Err(error) => judge::fail(format!(
                "Standard input was closed, and Shared::new() returned the error \"{error}\"; expected Ok. Then 0 is a valid \
                 descriptor: a call that returns one has failed only if it returns -1."
            )),
        };
        fill(&*value, 0);
        expect_mapped(start_of(&value), ODD, "64 KiB and 1 byte");
    })
}

#[test]
fn moved() {
    case(|| {
        // The vector moves its values each time it grows.
        let mut values = Vec::new();
        for salt in [0, 100, 0, 100, 0] {
            let value = new!([AtomicU8; ODD]);
            fill(&*value, salt);
            values.push((value, salt));
        }
        while let Some((value, salt)) = values.pop() {
            let moved = Box::new(value);
            check!(
                is_filled(&**moved, salt),
                "A value was moved to another variable, and its contents changed. Keep the T in the mapping, not in \
                 the Shared value."
            );
        }
    })
}

// Values are `MaybeUninit`, which is `FromBytes` whatever it holds, and which README.md asks the bound to accept.
// zerocopy's derive macro takes long to compile.

#[repr(C, align(2097152))]
struct HugePageAligned([u8; 2 << 20]);

#[repr(C, align(2097152))]
struct NothingAligned([u8; 0]);

/// Aligned to the largest page size of aarch64.
#[repr(C, align(65536))]
struct PageAligned([u8; 64 << 10]);

#[repr(C, align(1024))]
struct Aligned([u8; 1024]);

#[repr(C, align(32768))]
struct HalfPageAligned([u8; 32 << 10]);

#[test]
fn aligned_to_more_than_a_page() {
    watched(
        || {
            watch(|| expect_invalid_input("2 MiB", Shared::<MaybeUninit<HugePageAligned>>::new()));
            watch(|| {
                expect_invalid_input(
                    "2 MiB, of size 0,",
                    Shared::<MaybeUninit<NothingAligned>>::new(),
                )
            });
            let page_aligned = watch(|| Shared::<MaybeUninit<PageAligned>>::new().map(drop));
            match page_size() < align_of::<PageAligned>() {
                true => expect_invalid_input("64 KiB, more than a page,", page_aligned),
                false => expect_aligned("64 KiB", page_aligned),
            }
        },
        |seen| seen.expect_nothing_left(),
    )
}

// Aligned to two pages of each page size of x86-64 and aarch64.

#[repr(C, align(8192))]
struct AlignedTo8KiB([u8; 8 << 10]);

#[repr(C, align(32768))]
struct AlignedTo32KiB([u8; 32 << 10]);

#[repr(C, align(131072))]
struct AlignedTo128KiB([u8; 128 << 10]);

/// Asks for several values with a page between them, so that every second address would be aligned.
macro_rules! expect_invalid_at_any_address {
    ($type:ty) => {{
        let mut kept = Vec::new();
        for _ in 0..8 {
            let value = Shared::<MaybeUninit<$type>>::new();
            expect_invalid_input("two pages", value);
            kept.push(Spacer::new());
        }
    }};
}

#[test]
fn aligned_by_chance() {
    case(|| match 2 * page_size() {
        two if two == align_of::<AlignedTo8KiB>() => {
            expect_invalid_at_any_address!(AlignedTo8KiB);
        }
        two if two == align_of::<AlignedTo32KiB>() => {
            expect_invalid_at_any_address!(AlignedTo32KiB);
        }
        _ => expect_invalid_at_any_address!(AlignedTo128KiB),
    })
}

fn expect_invalid_input<T>(alignment: &str, result: io::Result<T>) {
    match result {
        Ok(_) => judge::fail(format!(
            "Shared::new() for a type aligned to {alignment} returned Ok; expected Err(InvalidInput). mmap aligns to a \
             page only."
        )),
        Err(error) => check!(
            error.kind() == ErrorKind::InvalidInput,
            "Shared::new() for a type aligned to {alignment} returned Err({:?}); expected Err(InvalidInput).",
            error.kind()
        ),
    }
}

fn expect_aligned(alignment: &str, result: io::Result<()>) {
    if let Err(error) = result {
        judge::fail(format!(
            "Shared::new() for a type aligned to {alignment}, which is at most a page, returned the error \
             \"{error}\"; expected Ok."
        ));
    }
}

#[test]
fn aligned_to_less_than_a_page() {
    case(|| {
        let value = Shared::<MaybeUninit<Aligned>>::new();
        if let Ok(value) = &value {
            let address = start_of(value).addr();
            check!(
                address.is_multiple_of(align_of::<Aligned>()),
                "A value whose type is aligned to 1 KiB is at address {address:#x}, which is not a multiple of 1 KiB. \
                 Put the value at the start of its mapping."
            );
        }
        expect_aligned("1 KiB", value.map(drop));
    })
}

#[test]
fn aligned_to_a_page() {
    case(|| {
        pretend_64_kib_pages();
        if let Err(error) = Shared::<MaybeUninit<PageAligned>>::new() {
            judge::fail(format!(
                "With 64 KiB pages, Shared::new() for a type aligned to 64 KiB returned the error \"{error}\"; expected Ok, \
                 because mmap aligns to a page. Return InvalidInput only for more than a page."
            ));
        }
    })
}

#[test]
fn asks_the_page_size() {
    case(pretend_64_kib_pages)
}

/// Fails the case if an alignment of 32 KiB is rejected then.
fn pretend_64_kib_pages() {
    pretend::page_size(align_of::<PageAligned>());
    if let Err(error) = Shared::<MaybeUninit<HalfPageAligned>>::new() {
        judge::fail(format!(
            "With 64 KiB pages, Shared::new() for a type aligned to 32 KiB returned the error \"{error}\"; expected Ok, \
             because mmap aligns to a page. Ask sysconf(_SC_PAGESIZE) for the page size."
        ));
    }
}

#[test]
fn of_size_zero() {
    case(|| {
        let [first, second] = [new!([AtomicU64; 0]), new!([AtomicU64; 0])];
        let [start, other] = [start_of(&first), start_of(&second)];
        check!(
            mapped_pages(start, 1) == 1,
            "A value of size 0 has no mapped page; expected one. Map at least 1 byte."
        );
        check!(
            start != other,
            "Two values of size 0 are at the same address. Each value needs a separate mapping."
        );
        drop(first);
        check!(
            mapped_pages(start, 1) == 0,
            "A value of size 0 was dropped, and its page is still mapped. Unmap the length that you mapped, which is \
             not size_of::<T>()."
        );
        check!(
            mapped_pages(other, 1) == 1,
            "A value of size 0 was dropped, and the page of another one is no longer mapped. Each value needs a \
             separate mapping."
        );
    })
}

/// Fails the case if a clone of a value uses the mapping of the original.
macro_rules! expect_no_second_owner {
    ($type:ty) => {
        let original = new!($type);
        let copy = judge::clone_if_possible!(Shared<$type>, &original);
        drop(original);
        if let Some(copy) = copy
            && mapped_pages((&raw const *copy).cast(), 1) == 0
        {
            // Its drop would unmap the range once more.
            std::mem::forget(copy);
            judge::fail(
                "A value was cloned, the original was dropped, and the clone's memory is unmapped, too. A mapping has \
                 one owner: do not implement Clone by copying the pointer."
                    .to_owned(),
            );
        }
    };
}

#[test]
fn gone_after_drop() {
    case(|| {
        expect_no_second_owner!(Numbers);
        // A derived `Clone` needs a type that is `Clone`.
        expect_no_second_owner!([u64; 8]);
        for Size { len, name, new, .. } in sizes() {
            let spacer = Spacer::above(*len);
            let value = new();
            drop(spacer);
            let start = value.bytes().as_ptr().cast();
            let neighbours = Neighbours::of(start, *len);
            drop(value);
            let left = mapped_pages(start, *len);
            check!(
                left < pages(start, *len),
                "After a value of {name} was dropped, it is still mapped. Unmap the memory in Drop."
            );
            check!(
                left == 0,
                "After a value of {name} was dropped, a part of it is still mapped. Unmap the whole length in Drop."
            );
            neighbours.expect_untouched("The drop of a value");
        }
    })
}

#[test]
fn dropped_in_a_child() {
    case(|| {
        let mut value = ManuallyDrop::new(new!([AtomicU8; ODD]));
        fill(&**value, 0);
        let start = start_of(&*value);
        let left = in_child(|| {
            // SAFETY: the child ends without using or dropping its copy again.
            unsafe { ManuallyDrop::drop(&mut value) };
            u8::from(mapped_pages(start, ODD) > 0)
        });
        check!(
            left == 0,
            "A child dropped its copy of a value, and the memory is still mapped in the child. Unmap it in every \
             process that drops it."
        );
        check!(
            is_filled(&**value, 0),
            "A child dropped its copy of a value, and the contents changed in its parent. In Drop, do nothing but \
             unmap the memory in this process."
        );
        in_child(|| {
            fill(&**value, 100);
            0
        });
        check!(
            is_filled(&**value, 100),
            "A child dropped its copy of a value, and the parent does not see the writes of the next child. Only the \
             process that drops the value may lose the mapping."
        );
        // SAFETY: the value is not used again.
        unsafe { ManuallyDrop::drop(&mut value) };
    })
}

#[test]
fn larger_than_4_gib() {
    case_with(file_limit(16 << 30), || {
        if !has_room(OVER_4_GIB) {
            judge::skip(
                "the kernel maps no 4 GiB here (vm.overcommit_memory, ulimit -v, or too little memory)",
            );
        }
        let value = new!([AtomicU8; OVER_4_GIB]);
        let start = start_of(&value);
        let last = start.wrapping_add(OVER_4_GIB - 1);
        check!(
            mapped_pages(start, 1) == 1 && mapped_pages(last, 1) == 1,
            "A value of 4 GiB and 64 KiB is not mapped up to its last byte. Pass the whole size to mmap."
        );
        value[0].store(1, SeqCst);
        value[OVER_4_GIB - 1].store(2, SeqCst);
        check!(
            value[0].load(SeqCst) == 1,
            "In a value of 4 GiB and 64 KiB, a write to the last byte changed the first one. Map the whole size."
        );
        drop(value);
        check!(
            mapped_pages(start, 1) == 0 && mapped_pages(last, 1) == 0,
            "After a value of 4 GiB and 64 KiB was dropped, its first or last page is still mapped. Unmap the whole \
             size in Drop."
        );
    })
}

/// The limit on files holds for the memory of memfd_create, too.
fn file_limit(file: u64) -> Limits {
    Limits {
        file,
        ..Limits::default()
    }
}

/// Whether the kernel maps that much shared memory in this process.
fn has_room(len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the mapping was made just now, and nothing uses it.
    unsafe { libc::munmap(start, len) };
    true
}

#[test]
fn keeps_no_heap_memory() {
    case(|| {
        let make_and_drop = |count| (0..count).for_each(|_| drop(new!([AtomicU8; 1])));
        expect_no_heap_kept("value", make_and_drop);
    })
}

#[test]
fn fields_are_private() {
    case(|| {
        // Ends the case here if the answer has no `Shared::new` yet.
        let _value = new!(Numbers);
        let public = judge::answer::source::public_fields("Shared");
        check!(
            public.is_empty(),
            "Shared has the public field `{}`: safe code could change it, and Deref would then return other memory. Leave \
             out `pub`.",
            public[0]
        );
        let functions = judge::answer::source::functions_that_trust_a_pointer("Shared");
        check!(
            functions.is_empty(),
            "The safe function `{}` makes a Shared from a pointer, so safe code can make one at any address, and Deref reads \
             there. Make the function unsafe, or leave it out.",
            functions[0]
        );
    })
}

#[test]
fn lends_no_mut() {
    case(|| {
        // Ends the case here if the answer has no `Shared::new` yet.
        let _value = new!(Numbers);
        let functions = judge::answer::source::functions_that_lend_mut_t("Shared");
        check!(
            functions.is_empty(),
            "The function `{}` lends a &mut T. As with DerefMut, two processes could each hold a &mut to the same value. \
             Leave the function out.",
            functions[0]
        );
    })
}

#[test]
fn safe_functions_are_sound() {
    case(|| {
        // Ends the case here if the answer has no `Shared::new` yet.
        let _value = new!(Numbers);
        let expect_none = |functions: Vec<String>, rest: &str| {
            if let Some(name) = functions.first() {
                judge::fail(format!("The safe function `{name}` {rest}"));
            }
        };
        expect_none(
            judge::answer::source::functions_that_lend_bytes("Shared"),
            "lends bytes of a Shared as `[u8]`. A T may contain atomics, which another process changes meanwhile, and a \
             MaybeUninit may have no value. Leave the function out, or require IntoBytes and Immutable.",
        );
        expect_none(
            judge::answer::source::functions_that_lend_for_too_long("Shared"),
            "lends a &T whose lifetime is not that of the Shared, so safe code can use it after Drop has unmapped the memory. \
             Return a &T with the lifetime of &self.",
        );
        expect_none(
            judge::answer::source::functions_that_return_a_reference("Shared", &["Cell"]),
            "lends a &Cell, through which safe code overwrites the shared value without an atomic, while another process may use \
             it. Leave the function out, or make it unsafe.",
        );
        expect_none(
            judge::answer::source::functions_that_overwrite("Shared"),
            "overwrites the shared value without an atomic, while another process may use it. A &mut Shared excludes other \
             threads, but no other process. Leave the function out, or make it unsafe.",
        );
    })
}

#[test]
fn runs_no_destructor() {
    case(|| {
        // Ends the case here if the answer has no `Shared::new` yet.
        let _value = new!(Numbers);
        // A bound that lists types accepts none that has a destructor, so the grader has no value to drop.
        let drops = judge::answer::source::drops_through_a_pointer();
        check!(
            drops.is_none(),
            "Your code runs the destructor of a value behind a pointer (`{}`). Other processes may still use the shared value, \
             and a destructor gets a &mut to it. In Drop, do nothing but unmap the memory.",
            drops.unwrap_or_default()
        );
    })
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            let numbers = watch(|| new!(Numbers));
            watch(|| drop(numbers));
        },
        |seen| seen.expect_nothing_left(),
    )
}

#[test]
fn calls_that_fail() {
    refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("mremap", Errno::ENOMEM),
            ("ftruncate", Errno::ENOMEM),
            ("memfd_create", Errno::ENOMEM),
            ("open", Errno::EMFILE),
            ("open", Errno::EEXIST),
            ("shmget", Errno::ENOSPC),
            ("shmget", Errno::EEXIST),
            ("shmat", Errno::ENOMEM),
        ],
        |refused| {
            let other = new!([AtomicU8; ODD]);
            fill(&*other, 0);
            match watch(|| refuse(Shared::<[AtomicU8; ODD]>::new)) {
                Ok(value) => {
                    expect_mapped(start_of(&value), ODD, "64 KiB and 1 byte");
                    check!(
                        (*value).iter().all(|byte| byte.load(SeqCst) == 0),
                        "The bytes of a new value are not all 0. Use new memory only: O_EXCL or IPC_PRIVATE opens nothing \
                         that another process has left."
                    );
                    fill(&*value, 100);
                    watch(|| refuse(|| drop(value)));
                }
                Err(error) => expect_errno("Shared::new()", &error, refused),
            }
            let start = start_of(&other);
            check!(
                mapped_pages(start, ODD) == pages(start, ODD) && is_filled(&*other, 0),
                "Another value lost its pages or its contents. Change and unmap only the value's own mapping."
            );
            match Shared::<[AtomicU8; ODD]>::new() {
                Err(error) if refused.is_some_and(|refusal| refusal.errno == Errno::EEXIST) => {
                    judge::fail(format!(
                        "A second call of Shared::new() still failed: {error}. A process that was killed may have left the \
                         object. Use another name each time, or IPC_PRIVATE."
                    ))
                }
                value => drop(value),
            }
        },
        |seen| seen.expect_nothing_left(),
    )
}
