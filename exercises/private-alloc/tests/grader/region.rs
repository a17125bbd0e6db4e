//! Stage 2: a `Region` that owns its mapping.

use judge::probe::{errno_of, expect_no_heap_kept, heap_in_use};
use judge::{Limits, case_with};

use super::*;

/// Not a multiple of any page size.
const ODD: usize = 12_345;

/// The largest page size of aarch64, which is a multiple of every machine's page size.
const PRETENDED_PAGE: usize = 64 << 10;

#[test]
fn ignores_an_earlier_errno() {
    case(|| expect_ok_whatever_errno("Region::new", || Region::new(LEN).map(drop)))
}

#[test]
fn zeroed() {
    case(|| {
        // The second region may get the memory of the first one, and must not show its bytes.
        for _ in 0..2 {
            for (len, name) in lengths() {
                let mut region = region(len);
                check!(
                    region.as_slice().as_ptr() == region.as_mut_slice().as_ptr(),
                    "as_slice() and as_mut_slice() of a region of {name} begin at different addresses. Both must return \
                     the mapped memory itself."
                );
                expect_read_and_write(region.as_slice().as_ptr());
                expect_mapped(region.as_slice().as_ptr(), len, name);
                expect_zeros(region.as_slice());
                region.as_mut_slice().fill(0xAA);
            }
        }
    })
}

#[test]
fn page_aligned() {
    case(|| {
        for (len, name) in lengths() {
            let region = region(len);
            let offset = region.as_slice().as_ptr().addr() % page_size();
            check!(
                offset == 0,
                "A region of {name} begins inside a page; expected the start of a page, where every mapping begins."
            );
        }
    })
}

#[test]
fn exact_length() {
    case(|| {
        for (len, name) in lengths().into_iter().chain(LARGE) {
            let mut region = region(len);
            let got = region.len();
            check!(
                got == len,
                "len() of a region of {name} returned {got}; expected {len}, the length that was requested."
            );
            for (view, got) in [
                ("as_slice()", region.as_slice().len()),
                ("as_mut_slice()", region.as_mut_slice().len()),
            ] {
                check!(
                    got == len,
                    "{view} of a region of {name} has {got} bytes; expected {len}. The rest of the last page is not \
                     part of the region."
                );
            }
        }
    })
}

/// `as_slice` and `as_mut_slice` have no way to report an error.
#[test]
fn calls_that_fail_in_views() {
    refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("mremap", Errno::ENOMEM),
            ("madvise", Errno::ENOMEM),
        ],
        |_| {
            let mut region = watch(|| region(LEN));
            watch(|| {
                refuse(|| {
                    region.len();
                    region.as_slice();
                    region.as_mut_slice();
                })
            });
            expect_read_and_write(region.as_slice().as_ptr());
            fill(region.as_mut_slice());
            watch(|| drop(region));
        },
        expect_clean,
    )
}

#[test]
fn writable_to_the_last_byte() {
    case(|| {
        for (len, name) in lengths() {
            let mut region = region(len);
            expect_read_and_write(region.as_slice().as_ptr());
            expect_mapped(region.as_slice().as_ptr(), len, name);
            fill(region.as_mut_slice());
            let written = |offset| {
                let byte = pattern(offset);
                format!(
                    "{byte} was written to byte {offset} of a region of {name} through as_mut_slice()."
                )
            };
            if let Some(offset) = first_change(region.as_slice()) {
                judge::fail(format!(
                    "{} as_slice() shows {} there. Both must return the mapped memory itself.",
                    written(offset),
                    region.as_slice()[offset]
                ));
            }
            let _ = region.as_mut_slice();
            if let Some(offset) = first_change(region.as_slice()) {
                judge::fail(format!(
                    "{} After another call of as_mut_slice(), as_slice() shows {} there. as_mut_slice() must not \
                     change the memory.",
                    written(offset),
                    region.as_slice()[offset]
                ));
            }
        }
    })
}

#[test]
fn lazy() {
    case(|| {
        let page = page_size();
        for (len, name) in lengths() {
            let region = region(len);
            let resident = resident_pages(region.as_slice().as_ptr(), len);
            check!(
                resident == 0,
                "Before the first access to a new region of {name}, {} resident; expected none. Do not populate or write \
                 the pages in `new`.",
                pages_of("its", resident, len.div_ceil(page))
            );
        }
        for len in [16 * page].into_iter().chain(LARGE.map(|(len, _)| len)) {
            let mut region = region(len);
            let bytes = region.as_mut_slice();
            expect_plain("The region", bytes.as_ptr(), bytes.len(), Kind::Private);
            for touched in [0, 3, 4, 9, 15] {
                bytes[touched * page] = 1;
            }
            let after = resident_pages(bytes.as_ptr(), bytes.len());
            check!(
                after == 5,
                "5 of the {} pages of a new region were written, and {after} are resident; expected 5. A page must become \
                 resident only when it is touched.",
                len.div_ceil(page)
            );
        }
    })
}

#[test]
fn gone_after_drop() {
    case(|| {
        let mut original = region(LEN);
        let copy = judge::clone_if_possible!(Region, &original);
        drop(original);
        if let Some(copy) = copy {
            expect_deep(copy);
        }
        original = region(LEN);
        if let Some(mut copy) = judge::clone_if_possible!(Region, &original) {
            fill(original.as_mut_slice());
            copy.as_mut_slice().fill(0xAA);
            check!(
                first_change(original.as_slice()).is_none(),
                "A region was cloned, and a write to the clone changed the original. Safe code has two mutable views of \
                 the same memory: copy the bytes to a new mapping, or leave out Clone."
            );
        }
        expect_only_its_pages_unmapped("a region", region);
        // MADV_DONTNEED and MADV_FREE, for example, fail for locked pages, and munmap does not.
        let region = region(LEN);
        let start = region.as_slice().as_ptr();
        lock_a_page(start);
        drop(region);
        expect_gone(start, LEN, "512 KiB with a locked page");
    })
}

/// Fails the case unless a drop of what `constructor` returns unmaps all pages of the region, and no others.
pub fn expect_only_its_pages_unmapped(what: &str, constructor: fn(usize) -> Region) {
    for (len, name) in lengths() {
        let spacer = Spacer::above(len);
        let region = constructor(len);
        drop(spacer);
        let start = region.as_slice().as_ptr();
        let neighbours = Neighbours::of(start, len);
        drop(region);
        expect_gone(start, len, name);
        neighbours.expect_untouched(&format!("The drop of {what}"));
    }
    for (len, name) in LARGE {
        let spacer = Spacer::new();
        let region = constructor(len);
        drop(spacer);
        let start = region.as_slice().as_ptr();
        // An answer may have mapped more at first, and have unmapped the rest.
        let neighbours = Neighbours::of(start, len);
        drop(region);
        neighbours.expect_untouched(&format!("The drop of {what} of {name}"));
    }
}

#[test]
fn larger_than_4_gib() {
    case_with(data_limit(16 << 30), || {
        if !has_room(OVER_4_GIB) {
            judge::skip(
                "the kernel maps no 4 GiB here (vm.overcommit_memory, ulimit -v, or too little memory)",
            );
        }
        let mut region = region(OVER_4_GIB);
        let (start, len) = (region.as_slice().as_ptr(), region.as_slice().len());
        check!(
            region.len() == OVER_4_GIB && len == OVER_4_GIB,
            "A region of 4 GiB and 64 KiB has len() {} and a slice of {len} bytes; expected {OVER_4_GIB} for both. Keep \
             the length in a usize.",
            region.len()
        );
        let last = start.wrapping_add(OVER_4_GIB - 1);
        expect_mapped_ends(&region, "4 GiB and 64 KiB");
        expect_plain("The region", start, OVER_4_GIB, Kind::Private);
        let bytes = region.as_mut_slice();
        bytes[0] = 1;
        bytes[OVER_4_GIB - 1] = 2;
        check!(
            bytes[0] == 1,
            "In a region of 4 GiB and 64 KiB, a write to the last byte changed the first one. Map the whole length."
        );
        drop(region);
        check!(
            mapped_pages(start, 1) == 0 && mapped_pages(last, 1) == 0,
            "After a region of 4 GiB and 64 KiB was dropped, its first or last page is still mapped. Unmap the whole \
             length in Drop."
        );
    })
}

/// More memory than any machine has.
const MORE_THAN_MEMORY: usize = 1 << 44;

/// A note of a case: `Region::new` has returned an error.
const RETURNED_ERROR: u64 = 1;

#[test]
fn more_than_is_free() {
    judge::watched_with(
        data_limit(2 * MORE_THAN_MEMORY as u64),
        || {
            if never_overcommits() {
                // Other processes could not allocate meanwhile.
                judge::skip(NEVER_OVERCOMMITS);
            }
            // The kernel maps more than is free, because a page needs memory only when it is touched.
            let mut longest = 0;
            let mut step = MORE_THAN_MEMORY / 2;
            while step > LEN {
                if has_room(longest + step) {
                    longest += step;
                }
                step /= 2;
            }
            // An answer may map somewhat more than it shows.
            let len = longest - longest / 16;
            // The first call is not watched, because the length depends on the machine, and no transcript may.
            let fails = || {
                begin_call();
                Region::new(len).is_err()
            };
            if len > LEN && fails() && watch(fails) {
                judge::note(RETURNED_ERROR);
            }
        },
        |seen| {
            let failed = seen.all_calls().iter().any(|call| call.result.is_err());
            check!(
                failed || !seen.notes().contains(&RETURNED_ERROR),
                "Region::new returned an error for a length that mmap maps here, and no system call had failed; expected a \
                 region. Compare the length with no amount of memory: a page needs memory only when it is touched."
            );
        },
    )
}

/// The longest length to try. An answer may reserve twice as many addresses as it shows.
const LONGEST: usize = 1 << 46;

#[test]
fn as_large_as_the_kernel_maps() {
    case_with(data_limit(2 * LONGEST as u64), || {
        if never_overcommits() {
            judge::skip(NEVER_OVERCOMMITS);
        }
        // How much that is depends on vm.overcommit_memory and on MAP_NORESERVE.
        let mut halves = (0..)
            .map(|half| LONGEST >> half)
            .take_while(|len| *len > LEN);
        if let Some((len, region)) = halves.find_map(|len| Some((len, Region::new(len).ok()?))) {
            expect_mapped_and_gone(region, len);
            if let Ok(region) = Region::new(len + 1) {
                expect_mapped_and_gone(region, len + 1);
            }
        }
    })
}

/// Fails the case unless the region has this length, and all that `mapped_pages` finds of it is gone after its drop.
fn expect_mapped_and_gone(region: Region, len: usize) {
    let (start, got) = (region.as_slice().as_ptr(), region.as_slice().len());
    let name = judge::amount(len);
    check!(
        region.len() == len && got == len,
        "A region of {name} has len() {} and a slice of {got} bytes; expected {len} for both. Keep the length in a usize.",
        region.len()
    );
    let places = [0, len / 2, len - 1].map(|offset| start.wrapping_add(offset));
    let mapped = |place: &*const u8| mapped_pages(*place, 1) == 1;
    check!(
        places.iter().all(mapped),
        "The first, the middle or the last page of a region of {name} is not mapped. Map the whole length."
    );
    drop(region);
    check!(
        !places.iter().any(mapped),
        "After a region of {name} was dropped, its first, middle or last page is still mapped. Unmap the whole length in \
         Drop, and keep lengths and numbers of pages in a usize."
    );
}

const NEVER_OVERCOMMITS: &str = "the case would take all memory, because vm.overcommit_memory is 2";

/// Whether private memory that is mapped is not available to other processes, even if it is not touched.
fn never_overcommits() -> bool {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    mode.is_ok_and(|mode| mode.trim() == "2")
}

pub fn data_limit(data: u64) -> Limits {
    Limits {
        data,
        ..Limits::default()
    }
}

/// Whether the kernel maps that much private memory in this process.
pub fn has_room(len: usize) -> bool {
    let protection = nix::libc::PROT_READ | nix::libc::PROT_WRITE;
    let flags = nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { nix::libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == nix::libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the mapping was made just now, and nothing uses it.
    unsafe { nix::libc::munmap(start, len) };
    true
}

#[test]
fn private() {
    case(|| {
        let mut region = region(LEN - 1);
        fill(region.as_mut_slice());
        let code = in_child(|| {
            let copied = first_change(region.as_slice()).is_none();
            region.as_mut_slice().fill(0xAA);
            u8::from(!copied)
        });
        check!(
            code == 0,
            "After a fork, the child does not read the bytes that its parent had written to the region; expected a \
             copy of them. Leave out MADV_WIPEONFORK and MADV_DONTFORK."
        );
        check!(
            first_change(region.as_slice()).is_none(),
            "A forked child wrote to the region, and its parent sees the write. Map the memory with MAP_PRIVATE."
        );
    })
}

#[test]
fn independent() {
    case(|| {
        for (len, name) in lengths() {
            let mut first = region(len);
            let mut second = region(len);
            fill(first.as_mut_slice());
            second.as_mut_slice().fill(0xAA);
            check!(
                first_change(first.as_slice()).is_none(),
                "A write to one region of {name} changed another one. Each region needs a separate mapping."
            );
            fill(second.as_mut_slice());
            first.as_mut_slice().fill(0xAA);
            check!(
                first_change(second.as_slice()).is_none(),
                "A write to one region of {name} changed another one. Each region needs a separate mapping."
            );
            fill(first.as_mut_slice());
            let third = region(len);
            // The older one first, then the youngest one: no order of drops may matter.
            drop(second);
            expect_kept(&first, name);
            drop(third);
            expect_kept(&first, name);
        }
    })
}

#[test]
fn dropped_in_any_order() {
    case(|| {
        const ORDERS: [[usize; 3]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for (len, name) in &lengths()[..5] {
            for order in ORDERS {
                let mut regions = [0; 3].map(|_| Some(region(*len)));
                regions
                    .iter_mut()
                    .flatten()
                    .for_each(|region| fill(region.as_mut_slice()));
                for index in order {
                    let dropped = regions[index].take();
                    let start = dropped.as_ref().map(|region| region.as_slice().as_ptr());
                    drop(dropped);
                    for kept in regions.iter().flatten() {
                        expect_kept(kept, name);
                    }
                    start
                        .into_iter()
                        .for_each(|start| expect_gone(start, *len, name));
                }
            }
        }
    })
}

/// Fails the case if a page of a region that was dropped is still mapped.
pub fn expect_gone(start: *const u8, len: usize, name: &str) {
    let (left, pages) = (mapped_pages(start, len), len.div_ceil(page_size()));
    check!(
        left == 0,
        "After a region of {name} was dropped, {} still mapped; expected none. Unmap all of it in Drop.",
        pages_of("its", left, pages)
    );
}

/// Fails the case unless the region, which `fill` has filled, is intact after the drop of another one.
fn expect_kept(region: &Region, name: &str) {
    let (start, len) = (region.as_slice().as_ptr(), region.len());
    let (mapped, expected) = (mapped_pages(start, len), len.div_ceil(page_size()));
    check!(
        mapped == expected,
        "Another region was dropped while a region of {name} was live, and {} unmapped. Unmap only the dropped \
         region's own pages.",
        pages_of("its", expected - mapped, expected)
    );
    check!(
        first_change(region.as_slice()).is_none(),
        "Another region was dropped, and the contents of a region of {name} changed. Each region needs a separate \
         mapping."
    );
}

#[test]
fn moved() {
    case(|| {
        let mut regions = Vec::new();
        // The vector moves its regions each time it grows.
        for (len, _) in lengths() {
            let mut region = region(len);
            fill(region.as_mut_slice());
            regions.push(Box::new(region));
        }
        while let Some(region) = regions.pop() {
            let mut region = *region;
            check!(
                first_change(region.as_slice()).is_none(),
                "A region was moved to another variable, and its contents changed. Keep the bytes in the mapping, not \
                 in the Region value."
            );
            region.as_mut_slice().fill(0xAA);
            drop(region);
            for kept in &regions {
                let start = kept.as_slice().as_ptr();
                check!(
                    mapped_pages(start, 1) == 1 && first_change(kept.as_slice()).is_none(),
                    "One of several regions was dropped, and another one lost its pages or its contents. Unmap only \
                     the dropped region's own pages."
                );
            }
        }
    })
}

#[test]
fn gone_after_a_panic() {
    case(|| {
        judge::expect_panics();
        let region = region(LEN);
        let start = region.as_slice().as_ptr();
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _region = region;
            panic!("on purpose");
        }));
        let left = mapped_pages(start, LEN);
        check!(
            left == 0,
            "A region of 512 KiB was dropped while its thread was panicking, and {} still mapped; expected none. Unmap \
             in Drop on every path.",
            pages_of("its", left, LEN / page_size())
        );
    })
}

#[test]
fn gone_after_a_drop_in_a_child() {
    case(|| {
        let mut region = Some(region(LEN));
        let start = region
            .as_ref()
            .map_or(std::ptr::null(), |region| region.as_slice().as_ptr());
        // Calibrate the probe before the fork.
        mapped_pages(start, LEN);
        let left = in_child(|| {
            drop(region.take());
            u8::from(mapped_pages(start, LEN) > 0)
        });
        check!(
            left == 0,
            "A region was dropped in a forked child, and it is still mapped there. Unmap in Drop, whichever process runs \
             it: the child's copy of the mapping is its own."
        );
    })
}

/// Fails the case unless a clone of a region, which is dropped by now, has memory of its own.
fn expect_deep(copy: Region) {
    let start = copy.as_slice().as_ptr();
    if mapped_pages(start, 1) == 0 {
        // Its drop would unmap the range once more.
        std::mem::forget(copy);
        judge::fail(
            "A region was cloned, the original was dropped, and the clone's memory is unmapped, too. A mapping has one \
             owner: do not derive Clone."
                .to_owned(),
        );
    }
}

#[test]
fn keeps_no_heap_memory() {
    case(|| {
        expect_no_heap_kept("region", |count| (0..count).for_each(|_| drop(region(1))));
        // A list of all regions keeps the memory that it needed when most of them existed.
        // More than a small table holds, and less than the kernel permits if each region has guard pages.
        let many = 4100.min(most_mappings() / 8);
        let live_together = |count| {
            let mut regions = Vec::with_capacity(count);
            while regions.len() < count {
                match Region::new(1) {
                    Ok(region) => regions.push(region),
                    // A region may keep a descriptor open, and the limit on them permits fewer.
                    Err(error)
                        if errno_of(&error) == Some(Errno::EMFILE) && regions.len() > 900 =>
                    {
                        break;
                    }
                    Err(error) => judge::fail(format!(
                        "Region::new(1) returned the error \"{error}\" while {} other regions existed; expected a region. Keep \
                         in each region what its Drop needs, and no table of all regions.",
                        regions.len()
                    )),
                }
            }
        };
        live_together(64);
        let before = heap_in_use();
        live_together(many);
        check!(
            heap_in_use() < before + many,
            "{many} regions existed at the same time. Now all are dropped, and malloc has at least {many} bytes more in \
             use than before. Keep in each region what its Drop needs, and no list of all regions."
        );
    })
}

/// The most mappings of a process.
fn most_mappings() -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

#[test]
fn fields_are_private() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let _region = region(LEN);
        let public = judge::answer::source::public_fields("Region");
        check!(
            public.is_empty(),
            "Region has the public field `{}`: safe code could change it, and Drop would then unmap other memory. Leave \
             out `pub`.",
            public[0]
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
        expect_clean,
    )
}

#[test]
fn large_leaves_nothing() {
    watched(
        || {
            for (len, name) in LARGE {
                let mut region = watch(|| region(len));
                expect_mapped_ends(&region, name);
                region.as_mut_slice()[len - 1] = 1;
                watch(|| drop(region));
            }
        },
        expect_clean,
    )
}

/// Fails the case unless the first and the last byte of the region are mapped.
fn expect_mapped_ends(region: &Region, name: &str) {
    let bytes = region.as_slice();
    expect_mapped(bytes.as_ptr(), 1, name);
    check!(
        mapped_pages(&raw const bytes[bytes.len() - 1], 1) == 1,
        "A region of {name} is not mapped up to its last byte. Pass the whole length to mmap."
    );
}

#[test]
fn calls_that_fail() {
    refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("mremap", Errno::ENOMEM),
            ("madvise", Errno::ENOMEM),
        ],
        |_| {
            let mut other = region(LEN);
            fill(other.as_mut_slice());
            for (len, name) in [(LEN, "512 KiB"), LARGE[1]] {
                match watch(|| refuse(|| Region::new(len))) {
                    Ok(mut region) => {
                        expect_mapped_ends(&region, name);
                        expect_zeros(&region.as_slice()[..LEN]);
                        fill(&mut region.as_mut_slice()[..LEN]);
                        watch(|| refuse(|| drop(region)));
                    }
                    result => expect_error(&format!("Region::new({name})"), result, OutOfMemory),
                }
            }
            expect_kept(&other, "512 KiB");
            expect_zeros(region(LEN).as_slice());
        },
        expect_clean,
    )
}

#[test]
fn without_standard_input() {
    case(|| {
        expect_no_need_of_standard_input("Region::new", || Region::new(LEN).map(drop));
    })
}

/// Fails the case unless `f`, which calls the function `call`, also works in a process without descriptor 0.
pub fn expect_no_need_of_standard_input(call: &str, f: impl FnOnce() -> io::Result<()>) {
    let open = || {
        // SAFETY: the command takes and changes no memory.
        let flags = unsafe { nix::libc::fcntl(nix::libc::STDIN_FILENO, nix::libc::F_GETFD) };
        flags != -1
    };
    in_child(|| {
        // SAFETY: the child does not read its standard input.
        unsafe { nix::libc::close(nix::libc::STDIN_FILENO) };
        begin_call();
        if let Err(error) = f() {
            judge::fail(format!(
                "Standard input was closed, and {call} returned the error \"{error}\"; expected Ok. The next file that is \
                 opened then has the descriptor 0: only -1 means that open has failed.{}",
                failed_call(&error)
            ));
        }
        check!(
            !open(),
            "Standard input was closed before {call}, and after it descriptor 0 is open; expected it to be closed. 0 is a \
             descriptor like any other: close each one that you open."
        );
        0
    });
}

/// How many regions `addresses_are_used_again` makes, and for how many of them there is room.
const IN_TURN: usize = 64;
const ROOM: usize = 4;

#[test]
fn addresses_are_used_again() {
    case_with(data_limit(2 * LONGEST as u64), || {
        if never_overcommits() {
            judge::skip(NEVER_OVERCOMMITS);
        }
        // The longer a region is, the sooner an answer that looks for free addresses itself comes to the end of them.
        let mut halves = (0..)
            .map(|half| LONGEST >> half)
            .take_while(|len| *len > LEN);
        let Some(len) = halves.find(|len| has_room(2 * len)) else {
            judge::skip("the kernel maps no 2 MiB here (vm.overcommit_memory, or ulimit -v)");
        };
        reserve_all_but(ROOM, len);
        for _ in 0..IN_TURN {
            begin_call();
            if let Err(error) = Region::new(len) {
                expect_own_errno("Region::new", &error);
                judge::fail(format!(
                    "{IN_TURN} regions were to be made and dropped, one after the other, in an address space with room for \
                     {ROOM}, and one Region::new returned the error \"{error}\"; expected a region. Let the kernel choose \
                     the address, and leave nothing behind in Drop."
                ));
            }
        }
    })
}

/// Reserves all addresses where `len` bytes have room, and then frees room for `count` times `len` bytes.
fn reserve_all_but(count: usize, len: usize) {
    let flags = nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS | nix::libc::MAP_NORESERVE;
    let reserve = |bytes: usize| {
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe {
            nix::libc::mmap(
                std::ptr::null_mut(),
                bytes,
                nix::libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        (start != nix::libc::MAP_FAILED).then_some(start)
    };
    let free = reserve(count * len);
    let mut bytes = LONGEST;
    while bytes >= len {
        if reserve(bytes).is_none() {
            bytes /= 2;
        }
    }
    if let Some(start) = free {
        // SAFETY: the range was reserved above, and nothing uses it.
        unsafe { nix::libc::munmap(start, count * len) };
    }
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| drop(region(ODD)));
        },
        |seen| {
            let rounded = |bytes: usize| {
                // No other length that an answer computes from `ODD` and 64 KiB is a multiple of 4 KiB.
                bytes.is_multiple_of(4 << 10) && !bytes.is_multiple_of(PRETENDED_PAGE)
            };
            let mut mapped: Vec<(u64, u64)> = Vec::new();
            for name in ["mmap", "munmap", "mprotect", "mremap"] {
                for call in seen.calls(name) {
                    let [start, bytes, new_bytes, ..] = call.args;
                    let sizes = match name {
                        "mremap" => vec![bytes, new_bytes],
                        _ => vec![bytes],
                    };
                    for bytes in sizes {
                        check!(
                            !rounded(bytes as usize),
                            "With 64 KiB pages, and for a region of {ODD} bytes, {name} got the length {bytes}, which is \
                             not a multiple of the page size. Ask sysconf(_SC_PAGESIZE) for the page size."
                        );
                    }
                    let inside = mapped
                        .iter()
                        .find(|(first, len)| (*first..first + len).contains(&start));
                    if let (Some((first, _)), true) = (inside, name != "mmap") {
                        let offset = start - first;
                        check!(
                            offset.is_multiple_of(PRETENDED_PAGE as u64)
                                || !offset.is_multiple_of(4 << 10),
                            "With 64 KiB pages, {name} got an address {offset} bytes into a mapping, which is not \
                             page-aligned. Ask sysconf(_SC_PAGESIZE) for the page size."
                        );
                    }
                    if let ("mmap", Ok(start)) = (name, call.result) {
                        mapped.push((start, bytes));
                    }
                }
            }
        },
    )
}
