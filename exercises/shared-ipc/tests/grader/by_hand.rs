//! Stage 1: raw `mmap` and `fork`.

use shared_ipc::ask_a_child;

use super::*;

fn ask(answer: fn() -> u64) -> u64 {
    // `ask_a_child` may also be a safe function, as in earlier versions of the stub.
    #[allow(unused_unsafe)]
    // SAFETY: every `answer` in this module computes a number and needs no lock.
    let answer = unsafe { ask_a_child(answer) };
    match answer {
        Ok(answer) => answer,
        Err(error) => judge::fail(format!(
            "ask_a_child must give the child's answer, and gave an error: {error}."
        )),
    }
}

#[test]
fn the_answer_arrives() {
    case(|| {
        let answer = ask(|| 0xFEED_FACE_CAFE_BEEF);
        check!(
            answer != 0,
            "The child's answer did not arrive, and the parent reads 0: is the memory shared, mapped before the fork, \
             and read after the wait?"
        );
        check!(
            answer == 0xFEED_FACE_CAFE_BEEF,
            "The child answered 0xFEED_FACE_CAFE_BEEF, and the parent reads {answer:#X}."
        );
    })
}

#[test]
fn the_child_answers() {
    case(|| {
        let answer = ask(|| std::process::id().into());
        check!(
            answer != u64::from(std::process::id()),
            "The parent has answered itself: the question must be put in the child."
        );
    })
}

#[test]
fn asks_for_these_calls() {
    watched(
        || {
            watch(|| ask(|| 1));
        },
        |seen| seen.expect_transcript("by_hand"),
    )
}
