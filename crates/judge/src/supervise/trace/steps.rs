//! Executes a thread instruction by instruction, and stops it before one that changes what others can see.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{Next, Tracer};
use crate::child::steps::{AWAITED, EXCLUSIVE, REFUSED, STOPPED, TOO_MANY, TRAPS};
use crate::limits::Places;
use crate::procfs;
use crate::protocol::NO_PLACE;

/// The most instructions that are executed step by step. A step takes 5 to 50 µs, the most in a virtual machine.
const MOST_STEPS: usize = 100_000;
/// The most places. At each of them a case may start processes and wait for them.
const MOST_PLACES: usize = 1000;
/// How much of each mapping is watched, in bytes.
const WATCHED: u64 = 256 << 10;
/// How much of the state is watched, in bytes. The answer, too, can send a mark that names it.
const WATCHED_STATE: u64 = 1 << 20;

/// The thread that is executed step by step, and the places that were found.
#[derive(Default)]
pub(super) struct Steps {
    running: Option<Running>,
    places: Vec<Place>,
    /// Why the code cannot be executed step by step: an answer to `Mark::Places`.
    impossible: Option<i32>,
    /// The thread that is stopped at its place.
    stopped: Option<Pid>,
    /// Whether the last thread has stopped at its place. `None` until it is known, and after it has been asked for.
    has_stopped: Option<bool>,
    /// Whether any thread has stopped at its place.
    have_stopped: bool,
}

/// Just before an instruction is executed for the nth time, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    instruction: u64,
    nth: usize,
}

/// The first bytes of an instruction.
type Code = [u8; 4];

struct Running {
    pid: Pid,
    /// The place to stop at; `None` to find all.
    until: Option<Place>,
    /// The memory of the process.
    memory: File,
    watched: Vec<Range<u64>>,
    contents: Vec<u8>,
    /// How often each instruction was reached.
    reached: BTreeMap<u64, usize>,
    steps: usize,
    /// The instruction that is executed next, and its first bytes.
    next: Option<(Place, Code)>,
    /// Whether the processor stops the thread at the instruction of `until`, without single steps.
    breakpoint: bool,
    /// Whether the thread is in a part without places.
    passes: bool,
    /// Whether nothing waits any more for it to stop, so that it must not.
    given_up: bool,
}

impl Steps {
    pub(super) fn is_running(&self, pid: Pid) -> bool {
        self.running.as_ref().is_some_and(|run| run.pid == pid)
    }

    pub(super) fn have_stopped(&self) -> bool {
        self.have_stopped
    }

    /// Whether the thread `pid` must be resumed for a single instruction.
    pub(super) fn steps(&self, pid: Pid) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|run| run.pid == pid && !run.breakpoint && !run.passes)
    }

    /// The thread `pid` begins or ends a part without places.
    pub(super) fn pass(&mut self, pid: Pid, begins: bool) {
        let Some(run) = self.running.as_mut().filter(|run| run.pid == pid) else {
            return;
        };
        run.passes = begins;
        // What the part has changed is not the change of one instruction.
        run.next = None;
        if run.breakpoint {
            // Fails only if the thread was killed meanwhile.
            let _ = match run.until {
                Some(place) if !begins => arch::set_breakpoint(pid, place.instruction),
                _ => arch::clear_breakpoint(pid),
            };
        }
    }
}

impl Tracer<'_> {
    /// Begins to execute `pid` step by step, up to the place with the number `place`.
    pub(super) fn begin_steps(&mut self, pid: Pid, place: u64, values: u64) {
        let until = self.steps.places.get(place as usize).copied();
        if until.is_none() && place != NO_PLACE as u64 {
            return;
        }
        self.shared.step();
        if until.is_some() {
            self.shared.run_to(Places {
                last: place as usize,
                all: self.steps.places.len(),
            });
        }
        self.steps.has_stopped = None;
        self.steps.running = Running::new(pid, until, values).ok();
        let fails = self.steps.running.is_none();
        if until.is_none() {
            self.steps.places.clear();
            self.steps.impossible = fails.then_some(REFUSED);
        } else if fails {
            self.steps.has_stopped = Some(false);
        }
    }

    /// The thread `pid` has left the part that is executed step by step, or has ended.
    pub(super) fn end_steps(&mut self, pid: Pid) {
        if self.steps.stopped == Some(pid) {
            self.steps.stopped = None;
        }
        let Some(run) = self.steps.running.take_if(|run| run.pid == pid) else {
            return;
        };
        if run.breakpoint {
            let _ = arch::clear_breakpoint(pid);
        }
        if run.until.is_some() && !run.given_up {
            self.steps.has_stopped = Some(false);
        }
    }

    /// The answer to `Mark::Places`.
    pub(super) fn number_of_places(&self) -> i64 {
        match self.steps.impossible {
            Some(why) => why.into(),
            None => self.steps.places.len() as i64 + 1,
        }
    }

    /// The answer to `Mark::HasStopped`.
    pub(super) fn has_stopped(&mut self) -> i64 {
        match (self.steps.has_stopped.take(), &self.steps.running) {
            (Some(true), _) => STOPPED.into(),
            (Some(false), _) => 0,
            (None, Some(run)) => i64::from(AWAITED) + i64::from(run.pid.as_raw()),
            (None, None) => AWAITED.into(),
        }
    }

    /// From now on, the thread does not stop when it reaches its place.
    pub(super) fn give_up(&mut self) {
        match &mut self.steps.running {
            Some(run) => run.given_up = true,
            // It has stopped, or has left the steps, meanwhile.
            None => {
                self.steps.has_stopped = None;
                self.go_on();
            }
        }
    }

    /// Lets the stopped thread go on.
    pub(super) fn go_on(&mut self) {
        if let Some(pid) = self.steps.stopped.take() {
            self.resume(pid, 0);
        }
    }

    /// Whether the SIGTRAP at which the thread `pid` is stopped reports that it has executed an instruction or has reached
    /// its place.
    pub(super) fn has_stepped(&self, pid: Pid) -> bool {
        let is_of_tracer = || ptrace::getsiginfo(pid).is_ok_and(|info| arch::is_of_tracer(&info));
        self.steps.is_running(pid) && is_of_tracer()
    }

    /// The thread `pid` gets a SIGTRAP that is not the tracer's. A step inside its handler would set the action back to the
    /// default, because the handler blocks the signal.
    pub(super) fn code_traps(&mut self, pid: Pid) {
        if self.steps.steps(pid) {
            self.steps.impossible = Some(TRAPS);
            self.end_steps(pid);
        }
    }

    /// Handles the trap after one instruction.
    pub(super) fn stepped(&mut self, pid: Pid) -> Next {
        let Some(run) = self.steps.running.as_mut() else {
            return Next::Resume;
        };
        self.shared.step();
        match run.step() {
            Ok(Step::Goes) => Next::Resume,
            Ok(Step::Changed(around)) => {
                for place in around {
                    if self.steps.places.last() != Some(&place) {
                        self.steps.places.push(place);
                    }
                }
                if self.steps.places.len() > MOST_PLACES {
                    self.steps.impossible = Some(TOO_MANY);
                    self.end_steps(pid);
                }
                Next::Resume
            }
            Ok(Step::Arrived) => {
                if run.breakpoint {
                    // Fails only if the thread was killed meanwhile.
                    let _ = arch::clear_breakpoint(pid);
                }
                let given_up = run.given_up;
                self.steps.running = None;
                if given_up {
                    return Next::Resume;
                }
                self.steps.stopped = Some(pid);
                self.steps.have_stopped = true;
                self.steps.has_stopped = Some(true);
                Next::Keep
            }
            Ok(Step::Impossible(why)) => {
                self.steps.impossible = Some(why);
                self.end_steps(pid);
                Next::Resume
            }
            // The thread was killed meanwhile.
            Err(_) => Next::Resume,
        }
    }
}

/// What one step has shown.
enum Step {
    Goes,
    /// The instruction between these places has changed what others can see.
    Changed([Place; 2]),
    /// The next instruction is the one to stop at.
    Arrived,
    /// The code cannot be executed step by step, for the reason that `Mark::Places` will return.
    Impossible(i32),
}

impl Running {
    /// `values` is the address of the start and the end of the memory to watch.
    fn new(pid: Pid, until: Option<Place>, values: u64) -> std::io::Result<Running> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut bytes = [0; 16];
        memory.read_exact_at(&mut bytes, values)?;
        let (start, end) = bytes.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let mut watched = procfs::shared_memory_and_statics(pid.as_raw());
        for range in &mut watched {
            range.end = range.end.min(range.start + WATCHED);
        }
        let (start, end) = (number(start), number(end));
        watched.push(start..end.clamp(start, start.saturating_add(WATCHED_STATE)));
        Ok(Running {
            pid,
            until,
            memory,
            watched,
            contents: Vec::new(),
            reached: BTreeMap::new(),
            steps: 0,
            next: None,
            breakpoint: until
                .is_some_and(|place| arch::set_breakpoint(pid, place.instruction).is_ok()),
            passes: false,
            given_up: false,
        })
    }

    fn step(&mut self) -> Result<Step, Errno> {
        self.steps += 1;
        let instruction = ptrace::syscall_info(self.pid)?.instruction_pointer;
        let executed = self.next;
        if let Some((place, code)) = executed
            && place.instruction == instruction
            && arch::is_repeated(code)
        {
            return Ok(self.unless_too_long(Step::Goes));
        }
        let reached = self.reached.entry(instruction).or_default();
        let next = Place {
            instruction,
            nth: *reached,
        };
        *reached += 1;
        if self.until == Some(next) {
            return Ok(Step::Arrived);
        }
        let code = self.code(instruction);
        self.next = Some((next, code));
        if self.until.is_some() {
            return Ok(self.unless_too_long(Step::Goes));
        }
        // The run that finds the places comes first, and executes the same instructions.
        if arch::is_exclusive(code) {
            return Ok(Step::Impossible(EXCLUSIVE));
        }
        if arch::saves_flags(code) {
            return Ok(Step::Impossible(TRAPS));
        }
        let contents = self.contents();
        let changed = self.steps > 1 && contents != self.contents;
        self.contents = contents;
        Ok(self.unless_too_long(match executed {
            Some((place, code)) if changed || arch::is_call(code) => Step::Changed([place, next]),
            _ => Step::Goes,
        }))
    }

    fn unless_too_long(&self, step: Step) -> Step {
        match self.steps > MOST_STEPS {
            true => Step::Impossible(TOO_MANY),
            false => step,
        }
    }

    /// The first bytes of the instruction at this address.
    fn code(&self, instruction: u64) -> Code {
        let mut bytes = [0; 4];
        // The instruction may be shorter, at the end of its mapping.
        let _ = self.memory.read_at(&mut bytes, instruction);
        bytes
    }

    /// What is in the watched memory; what is no longer mapped counts as empty.
    fn contents(&self) -> Vec<u8> {
        let mut contents = Vec::new();
        for range in &self.watched {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            if self.memory.read_exact_at(&mut bytes, range.start).is_ok() {
                contents.append(&mut bytes);
            }
        }
        contents
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::mem::offset_of;

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    use super::Code;

    /// The thread stops before each execution of this instruction. In a virtual machine that is much cheaper than single
    /// steps, because each trap leaves the machine.
    pub fn set_breakpoint(pid: Pid, instruction: u64) -> Result<(), Errno> {
        const ENABLED: i64 = 1;
        write_debug_register(pid, 0, instruction as i64)?;
        write_debug_register(pid, 7, ENABLED)
    }

    pub fn clear_breakpoint(pid: Pid) -> Result<(), Errno> {
        write_debug_register(pid, 7, 0)
    }

    fn write_debug_register(pid: Pid, number: usize, value: i64) -> Result<(), Errno> {
        let registers = offset_of!(libc::user, u_debugreg);
        let address = registers + number * size_of::<u64>();
        ptrace::write_user(pid, address as ptrace::AddressType, value)
    }

    /// Whether this is `syscall`.
    pub fn is_call(code: Code) -> bool {
        code[..2] == [0x0f, 0x05]
    }

    /// Whether this is a string instruction with `rep`, which traps after each of its repetitions. A breakpoint stops only
    /// before the first one.
    pub fn is_repeated(code: Code) -> bool {
        let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf2 | 0xf3);
        let prefixes = code.iter().take_while(|byte| is_prefix(byte)).count();
        let repeats = code[..prefixes]
            .iter()
            .any(|byte| matches!(byte, 0xf2 | 0xf3));
        repeats
            && matches!(
                code.get(prefixes),
                Some(0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf)
            )
    }

    /// Whether this is `pushf`. It would save the flag of single steps, and a step over `popf` would leave it set.
    pub fn saves_flags(code: Code) -> bool {
        code[0] == 0x9c || matches!(code[..2], [0x66 | 0x40..=0x4f, 0x9c])
    }

    /// Whether a SIGTRAP with this code reports a step or a breakpoint, and is not sent by the code or its `int3`.
    pub fn is_of_tracer(info: &libc::siginfo_t) -> bool {
        (libc::TRAP_BRKPT..=libc::TRAP_UNK).contains(&info.si_code)
    }

    /// Every instruction can be executed in a single step.
    pub fn is_exclusive(_: Code) -> bool {
        false
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use nix::errno::Errno;
    use nix::libc;
    use nix::unistd::Pid;

    use super::Code;

    /// A thread that continues from a breakpoint here would stop at it again, so single steps are taken.
    pub fn set_breakpoint(_: Pid, _: u64) -> Result<(), Errno> {
        Err(Errno::ENOTSUP)
    }

    pub fn clear_breakpoint(_: Pid) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether this is `svc #0`.
    pub fn is_call(code: Code) -> bool {
        u32::from_le_bytes(code) == 0xd400_0001
    }

    pub fn is_repeated(_: Code) -> bool {
        false
    }

    pub fn saves_flags(_: Code) -> bool {
        false
    }

    /// Whether a SIGTRAP with this code reports a step, and is not sent by the code or its `brk`.
    pub fn is_of_tracer(info: &libc::siginfo_t) -> bool {
        // After a system call the kernel reports a step like a signal that nobody has sent.
        // SAFETY: a signal with this code has a sender.
        let after_call = info.si_code == libc::SI_USER && unsafe { info.si_pid() } == 0;
        after_call || (libc::TRAP_TRACE..=libc::TRAP_UNK).contains(&info.si_code)
    }

    /// Whether this is a load-exclusive: `ldxr`, `ldaxr`, `ldxp` or `ldaxp`. The trap after it clears the monitor, so the
    /// store-exclusive would fail for ever (Arm Architecture Reference Manual, C4.1, "Load/store exclusive").
    pub fn is_exclusive(code: Code) -> bool {
        let code = u32::from_le_bytes(code);
        let is_casp = code & 0x8020_0000 == 0x0020_0000;
        code & 0x3fc0_0000 == 0x0840_0000 && !is_casp
    }
}
