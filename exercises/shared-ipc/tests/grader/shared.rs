//! Stage 2: a `Shared<T>` that owns its mapping.

use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicU8;

use judge::probe::{Kind, expect_plain, mapped_pages, page_size, permissions, resident_pages};
use judge::{in_child, pretend};
use zerocopy::FromBytes;

use super::*;

#[test]
fn zeroed() {
    case(|| {
        for _ in 0..2 {
            let numbers = new!(Numbers);
            check!(
                numbers.iter().all(|number| number.load(SeqCst) == 0),
                "A new value's bytes must be zero."
            );
            numbers.iter().for_each(|number| number.store(1, SeqCst));
        }
    })
}

#[test]
fn a_childs_writes_arrive() {
    case(|| {
        let numbers = new!(Numbers);
        in_child(|| {
            for (index, number) in numbers.iter().enumerate() {
                number.store(index as u64 + 1, SeqCst);
            }
            0
        });
        let mut numbers = numbers.iter().zip(1..);
        check!(
            numbers.all(|(number, value)| number.load(SeqCst) == value),
            "A child wrote every number, and its parent does not see them: this memory is private."
        );
    })
}

#[test]
fn nobody_elses() {
    case(|| {
        let one = new!(Numbers);
        let other = new!(Numbers);
        one.iter().for_each(|number| number.store(1, SeqCst));
        check!(
            other.iter().all(|number| number.load(SeqCst) == 0),
            "A write to one value is seen in another: each must have memory of its own."
        );
    })
}

#[test]
fn never_on_the_stack() {
    case(|| {
        // 64 MiB does not fit on a thread's stack.
        let bytes = new!([AtomicU8; 64 << 20]);
        let start = bytes.as_ptr().cast();
        check!(
            resident_pages(start, 64 << 20) == 0,
            "Pages of a new value were resident before anything had touched them: the kernel has zeroed it already."
        );
        bytes[(64 << 20) - 1].store(1, SeqCst);
    })
}

#[test]
fn mapped_as_asked() {
    case(|| {
        let numbers = new!(Numbers);
        let start: *const u8 = numbers.as_ptr().cast();
        let first = permissions(start);
        check!(
            first.read && first.write && !first.execute,
            "The value must be mapped to be read and written, and not to be executed."
        );
        check!(
            first.shared,
            "The value lies in private memory: a child would write to a copy."
        );
        let mut pages = (0..size_of::<Numbers>()).step_by(page_size());
        check!(
            pages.all(|offset| permissions(start.wrapping_add(offset)) == first),
            "The value reaches past the end of its mapping: all of its bytes must be mapped."
        );
        expect_plain("The value", start, size_of::<Numbers>(), Kind::Shared);
    })
}

#[derive(FromBytes)]
#[repr(C, align(2097152))]
struct HugePageAligned([u8; 2 << 20]);

#[test]
fn aligned_to_more_than_a_page() {
    watched(
        || watch(|| expect_invalid_input(Shared::<HugePageAligned>::new())),
        |seen| seen.expect_ledger("refused"),
    )
}

fn expect_invalid_input<T>(result: io::Result<T>) {
    match result {
        Ok(_) => judge::fail(
            "A value aligned to 2 MiB must be an error: a mapping begins with a page, wherever that is."
                .to_owned(),
        ),
        Err(error) => check!(
            error.kind() == ErrorKind::InvalidInput,
            "A value aligned to 2 MiB must be InvalidInput, and the error was {:?}.",
            error.kind()
        ),
    }
}

/// Aligned to the largest page size of aarch64.
#[derive(FromBytes)]
#[repr(C, align(65536))]
struct PageAligned([u8; 64 << 10]);

#[test]
fn asks_the_page_size() {
    case(|| {
        pretend::page_size(align_of::<PageAligned>());
        if let Err(error) = Shared::<PageAligned>::new() {
            judge::fail(format!(
                "On a machine whose pages are 64 KiB a mapping has room for a value aligned to 64 KiB, and \
                 Shared::new() gave an error ({error}): the page size must come from sysconf."
            ));
        }
    })
}

#[test]
fn of_no_size() {
    case(|| {
        let nothing = new!([AtomicU64; 0]);
        check!(
            mapped_pages(nothing.as_ptr().cast(), 1) == 1,
            "A value of no size must have a page of its own, too."
        );
    })
}

#[test]
fn gone_after_drop() {
    case(|| {
        let numbers = new!(Numbers);
        let start = numbers.as_ptr().cast();
        let pages = size_of::<Numbers>() / page_size();
        drop(numbers);
        let left = mapped_pages(start, size_of::<Numbers>());
        check!(
            left < pages,
            "After the value was dropped the kernel still maps all of it: Drop must unmap."
        );
        check!(
            left == 0,
            "After the value was dropped the kernel still maps a part of it: Drop must unmap the whole length."
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
        |seen| seen.expect_ledger("shared"),
    )
}
