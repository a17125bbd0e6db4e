//! Writes a trace as JSON. Only the line `recorded_on` depends on the machine.

use super::{Bits, Op, PAGES, Scenario, Seen, Step, Who, machine};
use crate::page_size;

pub fn trace(scenario: &Scenario, seen: &[Seen]) -> String {
    let (kernel, machine) = machine();
    let mapping = if scenario.shared { "shared" } else { "private" };
    let steps = scenario.steps.iter().zip(seen);
    let steps: Vec<_> = steps.map(|(planned, seen)| step(planned, seen)).collect();
    format!(
        "{{\n  \"name\": {},\n  \"mapping\": \"{mapping}\",\n  \"pages\": {PAGES},\n  \
         \"recorded_on\": {{ \"kernel\": {}, \"machine\": {}, \"page_size\": {} }},\n  \
         \"steps\": [\n    {}\n  ]\n}}\n",
        string(scenario.name),
        string(&kernel),
        string(&machine),
        page_size(),
        steps.join(",\n    ")
    )
}

fn step(step: &Step, seen: &Seen) -> String {
    let (op, first, count) = match step.op {
        Op::Map { .. } => ("map", 0, PAGES),
        Op::Read { first, count } => ("read", first, count),
        Op::Write { first, count, .. } => ("write", first, count),
        Op::DontNeed { first, count } => ("dontneed", first, count),
        Op::Fork => ("fork", 0, 0),
        Op::Exit => ("exit", 0, 0),
    };
    let by = match step.by {
        Who::Parent => "parent",
        Who::Child => "child",
    };
    let letters = |bits: &[Bits]| bits.iter().map(|bits| bits.letter()).collect::<String>();
    let parent = letters(&seen.parent);
    let both = |parent: &str, child: Option<&str>| match child {
        Some(child) => format!("{{ \"parent\": \"{parent}\", \"child\": \"{child}\" }}"),
        None => format!("{{ \"parent\": \"{parent}\" }}"),
    };
    let child = seen.child.as_deref().map(letters);
    // Faults that are not predictable are left out: those of fork include faults of the process's own stack.
    let faults = step.faults.map(|_| seen.measured.faults);
    let number =
        |number: Option<u64>| number.map_or("null".to_owned(), |number| number.to_string());
    format!(
        "{{ \"process\": \"{by}\", \"op\": \"{op}\", \"first\": {first}, \"count\": {count}, \"says\": {}, \
         \"value\": {}, \"faults\": {}, \"bits\": {}, \"states\": {} }}",
        string(step.says),
        number(seen.measured.value.map(u64::from)),
        number(faults),
        both(&parent, child.as_deref()),
        both(step.parent, child.as_ref().map(|_| step.child)),
    )
}

/// Returns the text as a JSON string. Control characters are not supported.
fn string(text: &str) -> String {
    let plain = |letter: char| !letter.is_control();
    assert!(
        text.chars().all(plain),
        "{text:?} has control characters, which need escapes"
    );
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
