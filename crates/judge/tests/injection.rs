//! Calls that the judge makes to fail.

mod common {
    pub mod rerun;
}

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::thread;

use common::rerun::rerun;
use judge::{Errno, Outcome, Refusal, Seen, check, observe_refusals, refuse, watch};
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

const LEN: usize = 512 << 10;

fn map() -> io::Result<*mut libc::c_void> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    match unsafe { libc::mmap(null_mut(), LEN, protection, flags, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        start => Ok(start),
    }
}

fn unmap(start: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: callers pass mappings that they have made and no longer use.
    match unsafe { libc::munmap(start, LEN) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn nothing_left(seen: &Seen) {
    seen.expect_nothing_left();
}

/// Expects this sentence of a case whose body is `body`, with these calls made to fail in turn.
#[track_caller]
fn earns(
    sentence: &str,
    plan: &[(&'static str, Errno)],
    body: impl FnOnce(Option<Refusal>),
) -> Outcome {
    let outcome = observe_refusals(plan, body, nothing_left);
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(sentence),
        "{outcome:#?}"
    );
    outcome
}

#[track_caller]
fn passes(plan: &[(&'static str, Errno)], body: impl FnOnce(Option<Refusal>)) -> Outcome {
    let outcome = observe_refusals(plan, body, nothing_left);
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
    outcome
}

#[test]
fn each_call_fails_once_with_its_errno() {
    passes(
        &[("mmap", Errno::ENOMEM), ("munmap", Errno::EINVAL)],
        |refused| {
            watch(|| {
                let Refusal {
                    call,
                    errno,
                    index,
                    lasting,
                } = match refused {
                    None => {
                        let mapped = refuse(|| [map(), map()]);
                        refuse(|| mapped.map(|start| unmap(start.unwrap()).unwrap()));
                        return;
                    }
                    Some(refusal) => refusal,
                };
                let failed = |result: Option<i32>, this: bool| {
                    assert_eq!(result, this.then_some(errno as i32), "{call} {index}");
                };
                let hits = |turn| index == turn || lasting && index < turn;
                refuse(|| {
                    for turn in 0..2 {
                        let start = map();
                        let errno = start.as_ref().err().and_then(io::Error::raw_os_error);
                        failed(errno, call == "mmap" && hits(turn));
                        let Ok(start) = start else { continue };
                        let errno = unmap(start).err().and_then(|error| error.raw_os_error());
                        failed(errno, call == "munmap" && hits(turn));
                    }
                });
            });
        },
    );
}

#[test]
fn a_failure_after_a_refusal_names_call_and_errno() {
    earns(
        "The grader made munmap fail with ENOMEM. Region::drop panicked.",
        &[("munmap", Errno::ENOMEM)],
        |_| {
            watch(|| {
                let start = map().unwrap();
                let unmapped = refuse(|| unmap(start));
                check!(unmapped.is_ok(), "Region::drop panicked.");
            });
        },
    );
}

#[test]
fn a_crash_after_a_refusal_names_the_call() {
    let outcome = observe_refusals(
        &[("mmap", Errno::ENOMEM)],
        |_| {
            let start = refuse(map).unwrap_or(null_mut()).cast::<u8>();
            // SAFETY: deliberately wrong: the address is null if mmap failed.
            unsafe { start.write_volatile(1) };
        },
        |_| (),
    );
    let sentence = outcome.sentence().unwrap();
    assert!(
        sentence.starts_with("The grader made mmap fail with ENOMEM. SIGSEGV: ")
            && sentence.ends_with(" Check the result of mmap."),
        "{sentence}"
    );
}

#[test]
fn a_crash_in_a_mapping_is_not_about_the_result_of_mmap() {
    let outcome = observe_refusals(
        &[("mmap", Errno::ENOMEM)],
        |_| {
            let start = map().unwrap();
            // SAFETY: nothing uses the memory.
            unsafe { libc::mprotect(start, LEN, libc::PROT_NONE) };
            if refuse(map).is_err() {
                // SAFETY: deliberately wrong: the memory cannot be written.
                unsafe { start.cast::<u8>().write_volatile(1) };
            }
        },
        |_| (),
    );
    assert_eq!(
        outcome.sentence().unwrap(),
        "The grader made mmap fail with ENOMEM. SIGSEGV: memory that is mapped with PROT_NONE was accessed, at the \
         first byte of a mapping of 512 KiB."
    );
}

/// Expects this end of the sentence about an answer that calls `end` if munmap fails.
fn earns_advice(advice: &str, end: fn()) {
    let outcome = observe_refusals(
        &[("munmap", Errno::ENOMEM)],
        |_| {
            let start = map().unwrap();
            if refuse(|| unmap(start)).is_err() {
                end();
            }
        },
        |_| (),
    );
    let sentence = outcome.sentence().unwrap();
    assert!(sentence.ends_with(advice), "{sentence}");
}

#[test]
fn a_panic_after_a_refusal_is_advised_against() {
    earns_advice(": munmap. Handle the error without a panic.", || {
        panic!("munmap")
    });
}

#[test]
fn an_abort_after_a_refusal_is_advised_against() {
    earns_advice(" Handle the error instead.", || std::process::abort());
}

#[test]
fn a_todo_on_the_path_of_a_failing_call_is_found() {
    let outcome = observe_refusals(
        &[("mmap", Errno::ENOMEM)],
        |_| match refuse(map) {
            Ok(start) => unmap(start).unwrap(),
            Err(_) => todo!(),
        },
        |_| (),
    );
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(sentence.starts_with("Not started: "), "{sentence}");
}

#[test]
fn what_is_left_after_a_refusal_is_found() {
    let outcome = observe_refusals(
        &[("mmap", Errno::ENOMEM)],
        |_| {
            watch(|| {
                let first = map().unwrap();
                match refuse(map) {
                    Ok(second) => [first, second].map(|start| unmap(start).unwrap()),
                    Err(_) => [(), ()], // the first mapping leaks
                };
            });
        },
        nothing_left,
    );
    let sentence = outcome.sentence().unwrap();
    assert!(
        sentence.starts_with("The grader made mmap fail with ENOMEM. ")
            && sentence.contains("512 KiB"),
        "{sentence}"
    );
}

#[test]
fn memory_whose_munmap_was_refused_is_not_left_by_the_answer() {
    let outcome = passes(&[("munmap", Errno::ENOMEM)], |_| {
        watch(|| {
            let start = map().unwrap();
            let _ = refuse(|| unmap(start));
        });
    });
    assert!(
        outcome
            .transcript
            .unwrap()
            .contains("munmap(A, 512 KiB) = 0")
    );
}

#[test]
fn a_case_whose_run_with_a_refusal_is_skipped_has_not_passed() {
    let outcome = observe_refusals(
        &[("mmap", Errno::ENOMEM)],
        |_| {
            let Ok(start) = refuse(map) else {
                judge::skip("nothing can be seen here");
            };
            unmap(start).unwrap();
        },
        |_| (),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Skipped: mmap was made to fail with ENOMEM, and nothing can be seen here.")
    );
}

#[test]
fn a_refused_call_is_marked_in_the_transcript() {
    let outcome = observe_refusals(
        &[("fork", Errno::EAGAIN), ("mmap", Errno::ENOMEM)],
        |refused| {
            watch(|| {
                // SAFETY: the child only exits.
                match refuse(|| unsafe { libc::fork() }) {
                    // SAFETY: ends the child without running any handler.
                    0 => unsafe { libc::_exit(0) },
                    -1 => judge::fail(format!("{:?}", refused.map(|refusal| refusal.call))),
                    child => waitpid(nix::unistd::Pid::from_raw(child), None).unwrap(),
                };
            });
        },
        |_| (),
    );
    assert_eq!(
        outcome.transcript.as_deref(),
        Some("P: fork() = EAGAIN (made to fail)\n")
    );
}

#[test]
fn a_refused_call_that_is_not_watched_is_marked_in_the_transcript() {
    let outcome = observe_refusals(
        &[("pipe", Errno::EMFILE)],
        |refused| {
            watch(|| {
                let pipe = refuse(io::pipe);
                check!(pipe.is_ok(), "{:?}", refused.map(|refusal| refusal.call));
            });
        },
        |_| (),
    );
    assert_eq!(
        outcome.transcript.as_deref(),
        Some("P: pipe() = EMFILE (made to fail)\n")
    );
}

#[test]
fn the_start_of_a_thread_is_made_to_fail() {
    let outcome = passes(&[("clone", Errno::EAGAIN)], |refused| {
        let started = watch(|| refuse(|| thread::Builder::new().spawn(|| 1)));
        match (started, refused) {
            (Ok(thread), None) => assert_eq!(thread.join().unwrap(), 1),
            (Err(error), Some(_)) => assert_eq!(error.raw_os_error(), Some(libc::EAGAIN)),
            (started, _) => panic!("{started:?} in a run with {refused:?}"),
        }
    });
    assert_eq!(outcome.transcript.as_deref(), Some(""));
}

#[test]
fn an_interrupted_wait_leaves_the_child() {
    passes(&[("wait4", Errno::EINTR)], interrupted_wait);
}

/// Waits for a child, again after each EINTR.
fn interrupted_wait(_: Option<Refusal>) {
    watch(|| {
        // SAFETY: the child only exits.
        match unsafe { fork() }.unwrap() {
            // SAFETY: ends the child without running any handler.
            ForkResult::Child => unsafe { libc::_exit(0) },
            ForkResult::Parent { child } => refuse(|| {
                while let Err(error) = waitpid(child, None) {
                    assert_eq!(error, Errno::EINTR);
                }
            }),
        }
    });
}

/// More injections than the socket to the judge has room for reports.
#[test]
fn an_interrupted_wait_without_a_tracer() {
    let output = rerun(|command| {
        command.env("JUDGE_NO_PTRACE", "1");
    });
    if let Some(output) = output {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        return;
    }
    let plan = [("wait4", Errno::EINTR)];
    let outcome = observe_refusals(&plan, interrupted_wait, nothing_left);
    // The calls cannot be seen, so the case does not pass.
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(sentence.starts_with("Skipped: "), "{outcome:#?}");
}

#[test]
fn a_wait_that_is_repeated_too_seldom() {
    earns(
        "The grader made wait4 fail with EINTR 1000 times in a row. The wait was given up.",
        &[("wait4", Errno::EINTR)],
        |_| {
            watch(|| {
                // SAFETY: the child only exits.
                match unsafe { fork() }.unwrap() {
                    // SAFETY: ends the child without running any handler.
                    ForkResult::Child => unsafe { libc::_exit(0) },
                    ForkResult::Parent { child } => {
                        let waited = refuse(|| (0..100).any(|_| waitpid(child, None).is_ok()));
                        check!(
                            waited || waitpid(child, None).is_err(),
                            "The wait was given up."
                        );
                    }
                }
            });
        },
    );
}

#[test]
fn descriptors_that_run_out() {
    let plan = [("pipe", Errno::EMFILE), ("pidfd_open", Errno::EMFILE)];
    passes(&plan, |refused| {
        let (pipe, pidfd) = refuse(|| {
            // SAFETY: pidfd_open accesses no memory.
            let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
            (io::pipe(), Errno::result(pidfd))
        });
        let call = refused.map(|refusal| refusal.call);
        assert_eq!(pipe.is_err(), call == Some("pipe"));
        assert_eq!(pidfd.is_err(), call == Some("pidfd_open"));
        // SAFETY: nothing else owns the descriptor.
        drop(pidfd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }));
        watch(|| ());
    });
}

#[test]
fn a_pthread_function_returns_the_error_and_keeps_errno() {
    let plan = [("pthread_mutex_lock", Errno::EINVAL)];
    passes(&plan, |refused| {
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        Errno::EXDEV.set();
        // SAFETY: the mutex is initialised and does not move.
        let result = refuse(|| unsafe { libc::pthread_mutex_lock(&raw mut mutex) });
        let expected = refused.map_or(0, |refusal| refusal.errno as i32);
        assert_eq!((result, Errno::last()), (expected, Errno::EXDEV));
    });
}

#[test]
fn calls_outside_the_window_and_malloc_go_on_working() {
    passes(&[("mmap", Errno::ENOMEM)], |refused| {
        watch(|| {
            unmap(map().unwrap()).unwrap();
            let large = refuse(|| vec![1u8; 4 << 20]);
            assert_eq!(large.len(), 4 << 20);
            std::thread::scope(|scope| {
                scope.spawn(|| unmap(map().unwrap()).unwrap());
            });
            let start = refuse(map);
            assert_eq!(start.is_err(), refused.is_some());
            start.map(|start| unmap(start).unwrap()).unwrap_or_default();
        });
    });
}

#[test]
fn a_retry_that_never_gives_up_is_found() {
    let outcome = observe_refusals(
        &[("munmap", Errno::ENOMEM)],
        |_| {
            let start = map().unwrap();
            let tries = refuse(|| (0..1000).take_while(|_| unmap(start).is_err()).count());
            check!(tries < 1000, "munmap was called 1000 times.");
        },
        |_| (),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("The grader made every munmap fail with ENOMEM. munmap was called 1000 times.")
    );
}

/// A name in /dev/shm that no other case uses. The cases of a test binary run at the same time, and have one parent.
fn name() -> CString {
    CString::new(format!("/injection-{}", std::process::id())).unwrap()
}

fn open_shared(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
    // SAFETY: the call succeeded, so the descriptor is new, and nothing else owns it.
    Ok(Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })?)
}

fn unlink(name: &CStr) {
    // SAFETY: the name is a C string.
    unsafe { libc::shm_unlink(name.as_ptr()) };
}

/// The call is reported to the judge, and not to the tracer.
#[test]
fn a_call_on_which_the_judge_decides_is_made_to_fail() {
    earns(
        "The grader made open fail with EMFILE. The file was not created.",
        &[("open", Errno::EMFILE)],
        |_| {
            let file = refuse(|| open_shared(&name()));
            unlink(&name());
            check!(file.is_ok(), "The file was not created.");
            watch(|| ());
        },
    );
}

#[test]
fn a_file_that_exists_already() {
    passes(&[("open", Errno::EEXIST)], |refused| {
        let file = refuse(|| open_shared(&name()));
        let errno = file.as_ref().err().and_then(io::Error::raw_os_error);
        assert_eq!(errno, refused.map(|refusal| refusal.errno as i32));
        // Without O_EXCL, the file has contents.
        // SAFETY: the name is a C string.
        let fd =
            Errno::result(unsafe { libc::shm_open(name().as_ptr(), libc::O_RDONLY, 0) }).unwrap();
        // SAFETY: the descriptor is new, and nothing else owns it.
        let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        assert_eq!(file.metadata().unwrap().len() > 0, refused.is_some());
        unlink(&name());
        watch(|| ());
    });
}

#[test]
fn a_failure_after_a_file_existed_already_says_so() {
    earns(
        "A file of that name existed already when your code created one in /dev/shm. Its name is taken.",
        &[("open", Errno::EEXIST)],
        |_| {
            let file = refuse(|| open_shared(&name()));
            unlink(&name());
            check!(file.is_ok(), "Its name is taken.");
            watch(|| ());
        },
    );
}

#[test]
fn calls_on_which_the_judge_decides_fail_once_with_their_errno() {
    let plan = [("open", Errno::EMFILE), ("shmget", Errno::ENOSPC)];
    passes(&plan, |refused| {
        let (file, id) = refuse(|| (open_shared(&name()), system_v()));
        let errno = |error: Option<&io::Error>| error.and_then(io::Error::raw_os_error);
        let refused_as = |call| {
            let this = refused.filter(|refusal: &Refusal| refusal.call == call);
            this.map(|refusal| refusal.errno as i32)
        };
        assert_eq!(errno(file.as_ref().err()), refused_as("open"));
        assert_eq!(errno(id.as_ref().err()), refused_as("shmget"));
        unlink(&name());
        id.map(remove).unwrap_or_default();
        watch(|| ());
    });
}

#[test]
fn system_v_memory_that_exists_already() {
    passes(&[("shmget", Errno::EEXIST)], |refused| {
        let key = std::process::id() as libc::key_t;
        // SAFETY: the call maps nothing.
        let id = refuse(|| unsafe { libc::shmget(key, LEN, libc::IPC_CREAT | 0o600) });
        // SAFETY: with a null address the kernel takes addresses where nothing is mapped.
        let start = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        // SAFETY: the memory was attached just now. If that failed, the test crashes.
        let byte = unsafe { start.cast::<u8>().read() };
        assert_eq!(byte != 0, refused.is_some());
        // SAFETY: nothing uses the memory any more.
        unsafe { libc::shmdt(start) };
        remove(id);
        watch(|| ());
    });
}

fn system_v() -> io::Result<i32> {
    // SAFETY: the call maps nothing.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, LEN, libc::IPC_CREAT | 0o600) };
    Ok(Errno::result(id)?)
}

fn remove(id: i32) {
    // SAFETY: removing takes no structure.
    unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) };
}

#[test]
fn an_object_that_a_failing_path_leaves_is_blamed() {
    let name = name();
    let body = |_| {
        let _file = open_shared(&name).unwrap();
        if let Ok(start) = refuse(map) {
            unmap(start).unwrap();
            unlink(&name);
        }
        watch(|| ());
    };
    let sentence = "The grader made mmap fail with ENOMEM. Your code created a file in /dev/shm and did not remove it; expected nothing that outlives the process. Call shm_unlink, also if a later call fails.";
    earns(sentence, &[("mmap", Errno::ENOMEM)], body);
}

#[test]
fn a_segment_that_a_failing_shmat_leaves_is_blamed() {
    earns(
        "The grader made shmat fail with ENOMEM. Your code created System V shared memory (shmget) and did not remove it; expected nothing that outlives the process. Call shmctl(IPC_RMID), also if a later call fails.",
        &[("shmat", Errno::ENOMEM)],
        |_| {
            let id = system_v().unwrap();
            // SAFETY: without an address the kernel takes one where nothing is mapped.
            let start = refuse(|| unsafe { libc::shmat(id, std::ptr::null(), 0) });
            if start.addr() != usize::MAX {
                remove(id);
                // SAFETY: nothing uses the mapping.
                unsafe { libc::shmdt(start) };
            }
            watch(|| ());
        },
    );
}

#[test]
fn a_call_for_an_empty_range_does_not_fail() {
    passes(&[("madvise", Errno::ENOMEM)], |refused| {
        watch(|| {
            // It changes nothing, and tells whether the kernel knows the advice.
            // SAFETY: as said.
            let asked = || unsafe { libc::madvise(null_mut(), 0, libc::MADV_NORMAL) };
            check!(refuse(asked) == 0, "The call for no bytes failed.");
            let start = map().unwrap();
            // SAFETY: this advice changes no contents.
            let advised = refuse(|| unsafe { libc::madvise(start, LEN, libc::MADV_NORMAL) });
            check!(
                (advised != 0) == refused.is_some(),
                "The call for all bytes returned {advised}."
            );
            unmap(start).unwrap();
        });
    });
}
