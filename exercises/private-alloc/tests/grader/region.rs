//! Stage 2: a `Region` that owns its mapping.

use super::*;

/// Not a multiple of any page size.
const ODD: usize = 12_345;

/// The largest page size of aarch64, which is a multiple of every machine's page size.
const PRETENDED_PAGE: usize = 64 << 10;

/// `Cloned::<T>::copy_of` clones a value if `T` is `Clone`: the inherent function takes precedence over the trait's.
struct Cloned<T>(std::marker::PhantomData<T>);

#[allow(dead_code)] // Unused if `Region` is not `Clone`.
impl<T: Clone> Cloned<T> {
    fn copy_of(original: &T) -> Option<T> {
        Some(original.clone())
    }
}

trait NotCloned<T> {
    fn copy_of(_: &T) -> Option<T> {
        None
    }
}

impl<T> NotCloned<T> for Cloned<T> {}

#[test]
fn zeroed() {
    case(|| {
        // The second region may get the memory of the first one, and must not show its bytes.
        for _ in 0..2 {
            let mut region = region(LEN);
            expect_zeros(region.as_slice());
            expect_read_and_write(region.as_slice().as_ptr());
            region.as_mut_slice().fill(0xAA);
        }
    })
}

#[test]
fn page_aligned() {
    case(|| {
        let regions = [region(1), region(100), region(LEN)];
        for region in &regions {
            check!(
                region
                    .as_slice()
                    .as_ptr()
                    .addr()
                    .is_multiple_of(page_size()),
                "Your region begins inside a page, where a mapping begins with its page: is this memory from mmap?"
            );
        }
    })
}

#[test]
fn exact_length() {
    case(|| {
        let odd = 3 * page_size() + 123;
        for len in [1, page_size(), odd] {
            let mut region = region(len);
            check!(
                region.len() == len,
                "len() is not the length that was asked for: the kernel maps whole pages, and the region is as \
                 long as its caller said."
            );
            let views = [region.as_slice().len(), region.as_mut_slice().len()];
            check!(
                views == [len, len],
                "A view is not as long as its region: the rest of the last page is not part of it."
            );
        }
    })
}

#[test]
fn writable_to_the_last_byte() {
    case(|| {
        let mut region = region(LEN - 1);
        expect_read_and_write(region.as_slice().as_ptr());
        region.as_mut_slice().fill(1);
    })
}

#[test]
fn lazy() {
    case(|| {
        let page = page_size();
        let mut region = region(16 * page);
        let bytes = region.as_mut_slice();
        expect_plain("The region", bytes.as_ptr(), bytes.len(), Kind::Private);
        let before = resident_pages(bytes.as_ptr(), bytes.len());
        check!(
            before == 0,
            "Pages of a new region were resident before anything had touched them: each must wait for its first \
             touch."
        );
        for touched in [0, 3, 4, 9, 15] {
            bytes[touched * page] = 1;
        }
        let after = resident_pages(bytes.as_ptr(), bytes.len());
        check!(
            after == 5,
            "Of 16 pages 5 were written, and {after} are resident: each touch must bring in its own page alone."
        );
    })
}

#[test]
fn private() {
    case(|| {
        let mut region = region(LEN);
        region.as_mut_slice().fill(1);
        let before_fork = region.as_slice().to_vec();
        let code = in_child(|| {
            let copied = region.as_slice() == before_fork;
            region.as_mut_slice().fill(2);
            u8::from(!copied)
        });
        check!(
            code == 0,
            "A forked child must find the bytes as they were at the fork."
        );
        check!(
            region.as_slice() == before_fork,
            "A forked child wrote to the region, and its parent sees it: this memory is shared, not private."
        );
    })
}

#[test]
fn independent() {
    case(|| {
        let mut first = region(LEN);
        let second = region(LEN);
        first.as_mut_slice().fill(1);
        check!(
            second.as_slice().iter().all(|byte| *byte == 0),
            "A write to one region is seen in another: each must have memory of its own."
        );
        let address = second.as_slice().as_ptr();
        drop(first);
        check!(
            mapped_pages(address, LEN) == LEN / page_size(),
            "Dropping one region took pages of another away."
        );
    })
}

#[test]
fn gone_after_drop() {
    case(|| {
        let page = page_size();
        let len = 16 * page - 1;
        let region = region(len);
        let start = region.as_slice().as_ptr();
        if let Some(copy) = Cloned::<Region>::copy_of(&region) {
            check!(
                copy.as_slice().as_ptr() != start,
                "A clone of a region is at the same address, and each of the two will unmap it: a mapping has one \
                 owner."
            );
        }
        drop(region);
        let left = mapped_pages(start, len);
        check!(
            left < 16,
            "After the region was dropped the kernel still maps all of it: Drop must unmap."
        );
        check!(
            left == 0,
            "After the region was dropped the kernel still maps {left} of its 16 pages: Drop must unmap the \
             whole length."
        );
    })
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            let mut region = watch(|| region(LEN));
            region.as_mut_slice().fill(1);
            watch(|| drop(region));
        },
        |seen| seen.expect_ledger("region"),
    )
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| drop(region(ODD)));
        },
        |seen| {
            for call in seen.calls("mmap").iter().chain(&seen.calls("munmap")) {
                let bytes = call.args[1] as usize;
                check!(
                    bytes == ODD || bytes.is_multiple_of(PRETENDED_PAGE),
                    "On a machine whose pages are 64 KiB your {} names neither the region's length nor whole \
                     pages: the page size must come from sysconf.",
                    call.name
                );
            }
        },
    )
}
