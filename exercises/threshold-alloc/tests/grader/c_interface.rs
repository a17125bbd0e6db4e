//! Stage 10, bonus: malloc's interface for C.

use std::process::Command;
use std::ptr::null_mut;
use std::thread;

use super::global::{self, Code, failure, fresh};
use super::*;

/// Allocates and frees one block. Ends the case here if the stage is not written yet.
fn expect_started() {
    free_c(malloc(100));
}

const WHY_DEALLOC: &str =
    "Pass dealloc the address that alloc returned, which is in front of the block, and its layout.";

/// Returns a block of that size. `layout` describes it, and is not what the answer has allocated.
fn malloc(size: usize) -> Block {
    expect_c_block(ALLOC.malloc(size), size, &format!("malloc({size})"))
}

/// Returns the block that `call` has returned, or fails the case unless it is aligned as C requires.
fn expect_c_block(start: *mut u8, size: usize, call: &str) -> Block {
    check!(
        !start.is_null(),
        "{call} returned null; expected a block of {}.",
        amount(size)
    );
    check!(
        start.addr().is_multiple_of(ALIGN),
        "{call} returned an address that is not a multiple of 16. C code may store any fundamental type in a block: \
         with a header in front of it, too, a block must be aligned to 16 bytes."
    );
    Block {
        start,
        layout: layout(size, ALIGN),
    }
}

fn free_c(block: Block) {
    free_c_to(&ALLOC, block);
}

fn free_c_to(allocator: &'static ThresholdAlloc, block: Block) {
    // SAFETY: the block is live, and from one of the C functions.
    unsafe { allocator.free(block.start) };
}

fn usable_size(block: Block) -> usize {
    // SAFETY: the block is live, and from one of the C functions.
    unsafe { ALLOC.usable_size(block.start) }
}

/// Fails the case if `call` did not return a block of about that size.
fn expect_usable(block: Block, call: &str) {
    let (size, usable) = (block.size(), usable_size(block));
    // A heap may round up to a power of two or so, and a mapping to whole pages.
    let most = size + size / 8 + 16 * KIB;
    check!(
        (size..=most).contains(&usable),
        "{call} made a block of {size} bytes, and its usable_size is {usable}; expected at least its size, and at most {most}."
    );
}

/// Changes the size of a block to `count` times `size` bytes. Returns null if the answer does.
fn resize(block: Option<Block>, count: usize, size: usize) -> *mut u8 {
    let start = block.map_or(null_mut(), |block| block.start);
    // SAFETY: the block is live, and from one of the C functions.
    unsafe { ALLOC.reallocarray(start, count, size) }
}

/// Frees `block` in a forked child and then here, or fails the case with `why` if that kills the child.
fn free_c_safely(block: Block, call: &str, why: &str) {
    let child = fork_child(|| free_c(block));
    // Without the signal, which can depend on chance.
    if matches!(waitpid(child, None), Ok(WaitStatus::Signaled(..))) {
        judge::fail(format!("free of a block from {call} crashed. {why}"));
    }
    free_c(block);
}

/// Repeats `calls`, which must free what they allocate, and fails the case if the heap grows.
fn expect_reuse(what: &str, calls: impl Fn()) {
    calls();
    let before = heap();
    (0..500).for_each(|_| calls());
    let (moved, most) = (heap().end.saturating_sub(before.end), most_moved());
    check!(
        moved <= most,
        "{what} 500 times, and the break moved up by {}; expected at most {}. Free the block with dealloc, with \
         the address and the layout that alloc was called with.",
        amount(moved),
        amount(most)
    );
}

#[test]
fn freed() {
    case(|| {
        malloc(100);
        let pid = fork_child(|| {
            for size in [100, 60_000, LARGE, 24] {
                (0..20).for_each(|_| free_c(malloc(size)));
            }
        });
        if matches!(waitpid(pid, None), Ok(WaitStatus::Signaled(..))) {
            judge::fail(format!(
                "A process that allocated blocks with malloc and passed each to free crashed. {WHY_DEALLOC}"
            ));
        }
        for size in [100, 60_000] {
            let what = format!("A block of {size} bytes was allocated and freed");
            expect_reuse(&what, || free_c(malloc(size)));
        }
        free_c(malloc(LARGE));
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn blocks() {
    case(|| {
        expect_started();
        let sizes = [small_sizes(), large_sizes()].concat();
        let blocks: Vec<Block> = sizes.iter().map(|size| malloc(*size)).collect();
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
            free_c(*block);
        }
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn of_no_bytes() {
    case(|| {
        expect_started();
        let starts = [(); 2].map(|()| ALLOC.malloc(0));
        check!(
            !starts.iter().any(|start| start.is_null()),
            "malloc(0) returned null. Many programs take that for a lack of memory: return a block, as glibc does."
        );
        check!(
            starts[0] != starts[1],
            "malloc(0) returned the same address twice, and neither was freed. Each block needs its own address."
        );
        // SAFETY: the blocks are live.
        starts
            .into_iter()
            .for_each(|start| unsafe { ALLOC.free(start) });
        let pid = fork_child(|| {
            // SAFETY: null is allowed.
            unsafe { ALLOC.free(null_mut()) };
        });
        check!(
            waitpid(pid, None) == Ok(WaitStatus::Exited(pid, 0)),
            "free(NULL) did not return. It must do nothing."
        );
        // SAFETY: as above.
        let usable = unsafe { ALLOC.usable_size(null_mut()) };
        check!(usable == 0, "usable_size(NULL) is {usable}; expected 0.");
        // Each returns null or a block, as the manual pages permit.
        let calls: [(&str, &dyn Fn() -> *mut u8); 6] = [
            ("calloc(0, 8)", &|| ALLOC.calloc(0, 8)),
            ("calloc(8, 0)", &|| ALLOC.calloc(8, 0)),
            ("aligned_alloc(64, 0)", &|| ALLOC.aligned_alloc(64, 0)),
            ("reallocarray(NULL, 0, 8)", &|| resize(None, 0, 8)),
            ("reallocarray(NULL, 8, 0)", &|| resize(None, 8, 0)),
            ("reallocarray(block, 8, 0)", &|| {
                resize(Some(malloc(100)), 8, 0)
            }),
        ];
        for (call, make) in calls {
            let pid = fork_child(|| {
                let start = make();
                // SAFETY: null is allowed, and a block is live.
                unsafe { ALLOC.free(start) };
            });
            if let Some(status) = failure(pid) {
                judge::fail(format!(
                    "{call} was called, and its result was freed, and the process {}. Expected both calls to return. Check \
                     a division by the size, and what follows from a size of 0.",
                    describe(status)
                ));
            }
        }
    })
}

/// Returns blocks of each function that makes one, with the call that made it. Between them are short blocks of
/// `malloc`.
fn blocks_of_every_function(sizes: &[usize]) -> Vec<(Block, String)> {
    let mut blocks = Vec::new();
    let mut add = |start, size, call: String| {
        blocks.push((expect_c_block(start, size, &call), call));
        blocks.push((malloc(24), "malloc(24)".to_owned()));
    };
    for &size in sizes {
        add(ALLOC.malloc(size), size, format!("malloc({size})"));
        add(ALLOC.calloc(size, 1), size, format!("calloc({size}, 1)"));
        let start = resize(None, 1, size);
        add(start, size, format!("reallocarray(NULL, 1, {size})"));
        let start = resize(Some(malloc(60)), 1, size);
        let call = format!("reallocarray of a block of 60 bytes to {size}");
        add(start, size, call);
        for align in [32, 64, 1024, 64 * KIB] {
            let start = ALLOC.aligned_alloc(align, size);
            add(start, size, format!("aligned_alloc({align}, {size})"));
            let call = format!("aligned_alloc({align}, 200)");
            let aligned = expect_c_block(ALLOC.aligned_alloc(align, 200), 200, &call);
            let start = resize(Some(aligned), 1, size);
            let call = format!("reallocarray of a block of {call} to {size}");
            add(start, size, call);
        }
    }
    blocks
}

#[test]
fn usable_bytes() {
    case(|| {
        expect_started();
        // The heap first, because where mappings are depends on chance.
        expect_usable_bytes(&[1, 8, 16, 17, 40, 100, 5000]);
        expect_usable_bytes(&[LARGE]);
        expect_nothing_mapped(&ALLOC);
    })
}

/// Fails the case unless all usable bytes of blocks of these sizes can be written.
fn expect_usable_bytes(sizes: &[usize]) {
    let mut blocks = blocks_of_every_function(sizes);
    for (block, call) in &mut blocks {
        let (size, usable) = (block.size(), usable_size(*block));
        check!(
            usable >= size,
            "usable_size of a block from {call} is {usable}; expected at least its size, {size}."
        );
        block.layout = layout(usable, ALIGN);
        // Of a mapped block whose header takes as much as its alignment, too many usable bytes are not mapped.
        check!(
            block.mapped() >= usable,
            "usable_size of a block from {call} is {usable}, and some of these bytes are not mapped. {WHY_USABLE}"
        );
    }
    let all: Vec<Block> = blocks.iter().map(|(block, _)| *block).collect();
    for (block, call) in &blocks {
        let end = block.range().end;
        let next = blocks.iter().find(|(other, _)| {
            let start = other.range().start;
            (block.range().start + 1..end).contains(&start)
        });
        if let Some((_, next)) = next {
            judge::fail(format!(
                "usable_size of a block from {call} is {}, and the next block, from {next}, begins before these bytes \
                 end. {WHY_USABLE}",
                block.size()
            ));
        }
    }
    let filled = failing_step(|step| {
        for (seed, block) in all.iter().enumerate() {
            step(seed);
            block.fill(seed);
            // The size of a block whose header was overwritten can be anything.
            if !all.iter().all(|block| usable_size(*block) == block.size()) {
                exit_now(OTHER_SIZE);
            }
        }
    });
    if let Some(step) = filled {
        let (block, call) = &blocks[step];
        judge::fail(format!(
            "All {} usable bytes of a block from {call} were written. Then usable_size of a block returned another \
                 number than before, or crashed. {WHY_USABLE}",
            block.size()
        ));
    }
    for (seed, block) in all.iter().enumerate() {
        block.fill(seed);
    }
    for (seed, block) in all.iter().enumerate() {
        block.expect(seed, OVERLAP);
    }
    let freed = failing_step(|step| {
        for (number, block) in all.iter().enumerate() {
            step(number);
            free_c(*block);
        }
    });
    if let Some(step) = freed {
        judge::fail(format!(
            "All bytes that usable_size reports were written, and then free of a block from {} crashed. \
                 {WHY_USABLE}",
            blocks[step].1
        ));
    }
    all.into_iter().for_each(free_c);
}

const WHY_USABLE: &str = "The usable bytes of one block must end before the header of the next. Subtract all that \
                          is in front of the block: a header, and more with a large alignment.";

/// Runs `f` in a forked child. If that does not exit with 0, returns the number that it has passed to its argument
/// last.
fn failing_step(f: impl FnOnce(&dyn Fn(usize))) -> Option<usize> {
    let (mut steps, report) = io::pipe().expect("a pipe");
    let child = fork_child(|| {
        f(&|step: usize| {
            let step = step.to_ne_bytes();
            (&report).write_all(&step).expect("the parent reads it");
        });
    });
    let failed = failure(child).is_some();
    drop(report);
    let mut reported = Vec::new();
    steps.read_to_end(&mut reported).expect("the pipe is open");
    let last = reported
        .last_chunk()
        .map(|last| usize::from_ne_bytes(*last));
    last.filter(|_| failed)
}

/// The exit status of a child in which `usable_size` returned another number than before.
const OTHER_SIZE: i32 = 6;

#[test]
fn unsafe_functions() {
    case(|| {
        expect_started();
        type Allocator = &'static ThresholdAlloc;
        type Block = *mut u8;
        let functions = [
            (
                "free",
                judge::is_safe_fn!(ThresholdAlloc::free, fn(Allocator, Block)),
            ),
            (
                "usable_size",
                judge::is_safe_fn!(ThresholdAlloc::usable_size, fn(Allocator, Block) -> usize),
            ),
            (
                "reallocarray",
                judge::is_safe_fn!(
                    ThresholdAlloc::reallocarray,
                    fn(Allocator, Block, usize, usize) -> Block
                ),
            ),
        ];
        expect_unsafe(&functions, FOREIGN_POINTER);
    })
}

#[test]
fn cleared_by_calloc() {
    case(|| {
        expect_started();
        for size in [100, 60_000, LARGE] {
            let used = malloc(size);
            used.fill(1);
            free_c(used);
            let block = expect_c_block(ALLOC.calloc(size / 4, 4), size, "calloc");
            block.expect_zeros("calloc");
            expect_usable(block, "calloc");
            free_c(block);
        }
    })
}

#[test]
fn resized() {
    case(|| {
        expect_started();
        let pid = fork_child(|| {
            resize(None, 1, 100);
        });
        check!(
            waitpid(pid, None) == Ok(WaitStatus::Exited(pid, 0)),
            "reallocarray(NULL, 1, 100) did not return. With NULL, it must do what malloc does."
        );
        let mut block = expect_c_block(resize(None, 1, 100), 100, "reallocarray(NULL, 1, 100)");
        expect_usable(block, "reallocarray(NULL, 1, 100)");
        // With a header of 16 bytes, one of them takes whole pages.
        for size in [200, 60_000, LARGE, 2 * LARGE, LARGE, 5000, 50, LARGE - 16] {
            block.fill(size);
            let before = block.size();
            let start = resize(Some(block), size / 2, 2);
            let after = expect_c_block(start, size, "reallocarray");
            let kept = after.prefix(size.min(before));
            kept.expect(size, "reallocarray must keep the contents.");
            let usable = usable_size(after);
            check!(
                usable >= size,
                "reallocarray made a block {size} bytes long, and its usable_size is {usable}; expected at least its \
                 size. Write the header again."
            );
            expect_usable(after, "reallocarray");
            block = after;
        }
        free_c(block);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend_large_pages();
            free_c(malloc(LARGE));
            let expect_pages = |call: &str| {
                let bytes = ALLOC.stats().mapped_bytes;
                check!(
                    bytes.is_multiple_of(PRETENDED_PAGE),
                    "With pages of 64 KiB, {call} was called, and stats().mapped_bytes is {bytes}; expected whole pages. Ask \
                     sysconf(_SC_PAGESIZE) for the page size."
                );
            };
            watch(|| {
                for align in [ALIGN, 1024, PRETENDED_PAGE, 2 * PRETENDED_PAGE] {
                    let call = format!("aligned_alloc({align}, {})", ODD_SIZES[0]);
                    let start = ALLOC.aligned_alloc(align, ODD_SIZES[0]);
                    let mut block = expect_c_block(start, ODD_SIZES[0], &call);
                    expect_pages(&call);
                    for size in ODD_SIZES {
                        block = expect_c_block(resize(Some(block), 1, size), size, "reallocarray");
                        expect_pages("reallocarray");
                    }
                    free_c(block);
                    expect_nothing_mapped(&ALLOC);
                }
            });
        },
        |seen| expect_whole_lengths(seen, &ODD_SIZES, 2 * PRETENDED_PAGE),
    )
}

/// The number of items of two bytes whose size wraps around to 2 bytes.
const TOO_MANY: usize = usize::MAX / 2 + 2;

#[test]
fn too_large() {
    case(|| {
        expect_started();
        let block = malloc(100);
        block.fill(1);
        type Call<'a> = (&'a str, &'a dyn Fn() -> *mut u8);
        let calls: [Call; 8] = [
            ("calloc(SIZE_MAX / 2 + 2, 2)", &|| ALLOC.calloc(TOO_MANY, 2)),
            ("reallocarray(NULL, SIZE_MAX / 2 + 2, 2)", &|| {
                resize(None, TOO_MANY, 2)
            }),
            ("reallocarray(block, SIZE_MAX / 2 + 2, 2)", &|| {
                resize(Some(block), TOO_MANY, 2)
            }),
            ("malloc(SIZE_MAX)", &|| ALLOC.malloc(usize::MAX)),
            ("malloc(SIZE_MAX - 15)", &|| ALLOC.malloc(usize::MAX - 15)),
            ("malloc(SIZE_MAX / 2)", &|| ALLOC.malloc(usize::MAX / 2)),
            ("aligned_alloc(1024, SIZE_MAX - 1024)", &|| {
                ALLOC.aligned_alloc(1024, usize::MAX - 1024)
            }),
            ("reallocarray(block, 1, SIZE_MAX)", &|| {
                resize(Some(block), 1, usize::MAX)
            }),
        ];
        for (text, call) in calls {
            Errno::clear();
            let start = call();
            let errno = Errno::last();
            check!(
                start.is_null(),
                "{text} returned a block; expected null, because no block can be that large. Multiply and add with \
                 checked_mul and checked_add."
            );
            check!(
                errno == Errno::ENOMEM,
                "{text} returned null, and errno is {}; expected ENOMEM. C programs print it: set errno before you \
                 return null.",
                name_of(errno)
            );
        }
        block.expect(
            1,
            "When reallocarray fails, the old block must stay as it is.",
        );
        free_c(block);
    })
}

fn name_of(errno: Errno) -> String {
    match errno {
        Errno::UnknownErrno => "0".to_owned(),
        errno => format!("{errno:?}"),
    }
}

#[test]
fn a_full_heap() {
    case(|| {
        expect_started();
        static FULL: ThresholdAlloc = ThresholdAlloc::new(Config {
            max_maps: 0,
            reserve: MIB,
            ..Config::new()
        });
        for _ in 0..20 {
            Errno::clear();
            if FULL.malloc(100 * KIB).is_null() {
                let errno = Errno::last();
                check!(
                    errno == Errno::ENOMEM,
                    "The heap is full, malloc returned null, and errno is {}; expected ENOMEM. C programs print it: set \
                     errno before you return null.",
                    name_of(errno)
                );
                return;
            }
        }
    })
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        expect_started();
        free_c(expect_c_block(ALLOC.calloc(1, 100), 100, "calloc"));
        free_c(expect_c_block(resize(None, 1, 100), 100, "reallocarray"));
        traces::run(traces::C.with_earlier_stages());
    })
}

#[test]
fn reallocarray_fails() {
    judge::refusals(
        &[
            ("mremap", Errno::ENOMEM),
            ("mmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
        ],
        |refused| {
            expect_started();
            let neighbour = malloc(1000);
            neighbour.fill(2);
            for (from, to) in [
                (1000, 200_000),
                (200_000, LARGE),
                (LARGE, 150 * KIB),
                (150 * KIB, 1000),
                (1000, 1 << 47),
                (LARGE, 1 << 47),
            ] {
                let block = malloc(from);
                let usable = usable_size(block);
                block.fill(1);
                Errno::clear();
                let start = judge::refuse(|| resize(Some(block), 1, to));
                let call = format!("reallocarray of a block of {from} bytes to {to}");
                if !start.is_null() {
                    let block = expect_c_block(start, to, &call);
                    let kept = block.prefix(from.min(to));
                    kept.expect(1, "reallocarray must keep the contents.");
                    free_c(block);
                    continue;
                }
                let errno = Errno::last();
                check!(
                    refused.is_some() || to == 1 << 47,
                    "{call} returned null, although no call failed; expected a block."
                );
                check!(
                    errno == Errno::ENOMEM,
                    "{call} returned null, and errno is {}; expected ENOMEM. Set errno before you return null.",
                    name_of(errno)
                );
                const KEPT: &str = "When reallocarray fails, the old block must stay as it is, its header included.";
                let now = usable_size(block);
                check!(
                    now == usable,
                    "{call} returned null, and the old block's usable_size changed from {usable} to {now}. {KEPT}"
                );
                block.expect(1, KEPT);
                free_c_safely(block, &call, KEPT);
                check!(
                    from < THRESHOLD || block.mapped() == 0 || block.is_in(&heap()),
                    "{call} returned null, the old block was freed, and it is still mapped. {KEPT}"
                );
            }
            neighbour.expect(2, OVERLAP);
            free_c(neighbour);
            expect_nothing_mapped(&ALLOC);
        },
        |_| (),
    )
}

#[test]
fn errno_survives_free() {
    judge::refusals(
        &[
            ("munmap", Errno::ENOMEM),
            ("mmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("madvise", Errno::EINVAL),
        ],
        |_| {
            expect_started();
            let block = malloc(LARGE);
            ALLOC.set_max_maps(0);
            // Freed at the heap's end, it makes dealloc move the break.
            let in_heap = malloc(4 * MIB);
            Errno::EDOM.set();
            judge::refuse(|| [block, in_heap].into_iter().for_each(free_c));
            let errno = Errno::last();
            check!(
                errno == Errno::EDOM,
                "free changed errno from EDOM to {}. Programs free memory before they report an error: save errno, and \
                 restore it.",
                name_of(errno)
            );
        },
        |_| (),
    )
}

#[test]
fn aligned_blocks() {
    case(|| {
        expect_started();
        for align in [1, 32, 64, 1024, 64 * KIB] {
            for size in [1, 100, 5000, LARGE] {
                let call = format!("aligned_alloc({align}, {size})");
                let aligned = || expect_c_block(ALLOC.aligned_alloc(align, size), size, &call);
                let (block, other) = (aligned(), aligned());
                check!(
                    block.start.addr().is_multiple_of(align),
                    "{call} returned an address that is not a multiple of {align}."
                );
                block.fill(1);
                other.fill(2);
                block.expect(1, OVERLAP);
                const WHY: &str = "Pass dealloc the address that alloc returned, which is in front of the block, and its layout.";
                free_c_safely(block, &call, WHY);
                free_c(other);
            }
        }
        expect_nothing_mapped(&ALLOC);
        expect_reuse(
            "A block of aligned_alloc(1024, 100) was allocated and freed",
            || {
                free_c(expect_c_block(
                    ALLOC.aligned_alloc(1024, 100),
                    100,
                    "aligned_alloc(1024, 100)",
                ));
            },
        );
        let block = expect_c_block(
            ALLOC.aligned_alloc(1024, 100),
            100,
            "aligned_alloc(1024, 100)",
        );
        block.fill(3);
        let larger = expect_c_block(resize(Some(block), 1, 5000), 5000, "reallocarray");
        larger
            .prefix(100)
            .expect(3, "reallocarray must keep the contents.");
        free_c(larger);
    })
}

#[test]
fn alignments_that_are_no_powers_of_two() {
    case(|| {
        expect_started();
        for align in [0, 24] {
            Errno::clear();
            let start = ALLOC.aligned_alloc(align, 100);
            let errno = Errno::last();
            check!(
                start.is_null() && errno == Errno::EINVAL,
                "aligned_alloc({align}, 100) returned {} and set errno to {}; expected null and EINVAL, because the \
                 alignment is not a power of two.",
                if start.is_null() { "null" } else { "a block" },
                name_of(errno)
            );
        }
    })
}

#[test]
fn freed_by_another_thread() {
    case(|| {
        expect_started();
        let round = || {
            let allocate = || [100, 1000, 60_000, LARGE].map(malloc);
            let blocks = thread::scope(|scope| join(scope.spawn(allocate)));
            for block in blocks {
                block.fill(1);
                const WHY: &str = "Any thread may free a block: keep nothing about it in a thread-local variable.";
                free_c_safely(block, "malloc, which another thread had called,", WHY);
            }
        };
        round();
        let before = heap();
        (0..20).for_each(|_| round());
        let mapped = ALLOC.stats().mapped_blocks;
        let moved = heap().end.saturating_sub(before.end);
        check!(
            mapped == 0 && moved <= 512 * KIB,
            "One thread allocated blocks, and another one freed them. Then {} were still mapped, and the break had moved \
             up by {}. Any thread may free a block: keep nothing about it in a thread-local variable.",
            judge::count(mapped, "block"),
            amount(moved)
        );
    })
}

/// The variable by which `before_main` asks a second process of the grader to allocate before `main`.
const BEFORE_MAIN: &std::ffi::CStr = c"ALLOCATES_BEFORE_MAIN";

/// The exit status of that process if `malloc` returned null.
const NULL: i32 = 3;

/// The loader calls it before the constructors without a number, those of an answer for example.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructor() {
        // SAFETY: the name is a C string, and no other thread exists.
        if unsafe { libc::getenv(BEFORE_MAIN.as_ptr()) }.is_null() {
            return;
        }
        for size in [100, LARGE] {
            let (block, zeros) = (ALLOC.malloc(size), ALLOC.calloc(1, size));
            if block.is_null() || zeros.is_null() {
                exit_now(NULL);
            }
            // SAFETY: the block has this size.
            unsafe { block.write_bytes(1, size) };
            // SAFETY: the block is live.
            unsafe { ALLOC.free(block) };
        }
        exit_now(0);
    }
    constructor
};

#[test]
fn before_main() {
    case(|| {
        expect_started();
        let variable = BEFORE_MAIN.to_str().expect("ASCII");
        let status = Command::new("/proc/self/exe").env(variable, "1").status();
        let status = status.expect("the grader can be started again");
        check!(
            status.code() != Some(NULL),
            "malloc or calloc returned null before main. The loader and constructors allocate before main runs: the allocator \
             must need no initialisation."
        );
        check!(
            status.success(),
            "A constructor called malloc before main, and the process ended with {status}. The loader and constructors \
             allocate before main runs: the allocator must need no initialisation."
        );
    })
}

#[test]
fn a_fork_while_a_thread_is_inside() {
    case(|| {
        expect_started();
        let allocate = |allocator: &'static ThresholdAlloc| {
            let block = allocator.malloc(100);
            // SAFETY: the block is live.
            unsafe { allocator.free(block) };
        };
        let steps = |allocator| Steps::of(allocator, move || allocate(allocator));
        steps(fresh()).find_in_thread();
        for place in 0..judge::places() {
            let allocator = fresh();
            let forks = || {
                failure(fork_child(|| {
                    traces::expect_progress_every(traces::LIMIT);
                    allocate(allocator);
                }))
            };
            let ((), failed) = steps(allocator).beside(place, forks);
            check!(
                failed.is_none(),
                "A process forked while another of its threads was inside malloc or free, and the child could not allocate. \
                 Hold each lock during the fork (pthread_atfork), also one of your C functions."
            );
        }
    })
}

#[test]
fn beside_others() {
    case(|| {
        expect_started();
        let code = Code {
            name: "the C functions",
            prepare: |allocator| {
                let block = |seed| {
                    let block = expect_c_block(allocator.malloc(1000), 1000, "malloc(1000)");
                    block.fill(seed);
                    block
                };
                let blocks = [0, 1, 2, 3].map(block);
                free_c_to(allocator, blocks[1]);
                vec![blocks[0], blocks[2], blocks[3]]
            },
            calls: |allocator, blocks| {
                let [first, third, last] = blocks[..] else {
                    unreachable!("there are three");
                };
                let resize = |block: Block, size| {
                    // SAFETY: the block is live, and from one of the C functions.
                    let start = unsafe { allocator.reallocarray(block.start, 1, size) };
                    expect_c_block(start, size, "reallocarray")
                };
                let (first, last) = (resize(first, 1500), resize(last, 5000));
                free_c_to(allocator, third);
                let zeros = expect_c_block(allocator.calloc(9, 100), 900, "calloc(9, 100)");
                let call = "aligned_alloc(64, 100)";
                let aligned = expect_c_block(allocator.aligned_alloc(64, 100), 100, call);
                vec![first, last, zeros, aligned]
            },
            check: |blocks| {
                for (block, seed) in blocks.iter().zip([0, 3]) {
                    let kept = block.prefix(200);
                    kept.expect(seed, "reallocarray must keep the contents.");
                }
                blocks[2].expect_zeros("calloc");
            },
            free: free_c_to,
        };
        global::stop_inside(&code, false);
        global::stop_another(&code);
    })
}
