//! A model of a processor with a write-back cache, and of a device that accesses only memory.

/// The cache line that contains the buffer.
const LINE: usize = 4;

// ANCHOR: main
/// Memory of one cache line, and the processor's copy of it in the cache.
#[derive(Default)]
struct Machine {
    memory: [u8; LINE],
    cache: Option<[u8; LINE]>,
    dirty: bool,
}

impl Machine {
    fn processor_reads(&mut self, at: usize) -> u8 {
        self.cache.get_or_insert(self.memory)[at]
    }

    fn processor_writes(&mut self, at: usize, value: u8) {
        self.cache.get_or_insert(self.memory)[at] = value;
        self.dirty = true; // memory still has the old value
    }

    /// What dma_map_single does: dirty data goes to memory, where the device finds it.
    fn clean(&mut self) {
        if let (Some(line), true) = (self.cache, self.dirty) {
            self.memory = line;
            self.dirty = false;
        }
    }

    /// What dma_unmap_single does, unless the direction is DMA_TO_DEVICE: the processor
    /// will read from memory again.
    fn invalidate(&mut self) {
        self.cache = None;
        self.dirty = false;
    }
}
// ANCHOR_END: main

/// The processor writes 7, and the device reads.
fn to_device(synchronise: bool) -> u8 {
    let mut machine = Machine::default();
    machine.processor_writes(0, 7);
    if synchronise {
        machine.clean();
    }
    machine.memory[0]
}

/// The processor has read the buffer before. The device writes 7, and the processor reads again.
fn from_device(synchronise: bool) -> u8 {
    let mut machine = Machine::default();
    machine.processor_reads(0);
    machine.memory[0] = 7;
    if synchronise {
        machine.invalidate();
    }
    machine.processor_reads(0)
}

// ANCHOR: shared
/// The device writes 7 to the buffer. Meanwhile the processor counts in the same line.
fn shared_line(end: fn(&mut Machine)) -> (u8, u8) {
    let (buffer, counter) = (0, 1);
    let mut machine = Machine::default();
    machine.processor_writes(counter, 1);
    machine.memory[buffer] = 7;
    end(&mut machine);
    let seen = machine.processor_reads(buffer);
    (seen, machine.processor_reads(counter))
}
// ANCHOR_END: shared

fn main() {
    println!("                                without  with the DMA API");
    let to = [to_device(false), to_device(true)];
    println!("processor writes 7, device reads      {}  {}", to[0], to[1]);
    let from = [from_device(false), from_device(true)];
    println!(
        "device writes 7, processor reads      {}  {}",
        from[0], from[1]
    );
    // A cache may write back a dirty line at any time, to make room.
    let written_back = shared_line(|machine| {
        machine.clean();
        machine.invalidate();
    });
    let dropped = shared_line(Machine::invalidate);
    println!("a counter in the same line:");
    println!(
        "line written back: buffer {}, counter {}",
        written_back.0, written_back.1
    );
    println!(
        "line invalidated:  buffer {}, counter {}",
        dropped.0, dropped.1
    );
    assert_eq!((to, from), ([0, 7], [0, 7]));
    assert_eq!((written_back, dropped), ((0, 1), (7, 0)));
}
