// A model of a processor with a write-back cache, and of a device that accesses only memory.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// The cache line that contains the buffer.
enum { LINE = 4 };

// ANCHOR: main
// Memory of one cache line, and the processor's copy of it in the cache.
struct machine {
    unsigned char memory[LINE];
    unsigned char cache[LINE];
    bool cached, dirty;
};

static void fill(struct machine *machine)
{
    if (!machine->cached)
        memcpy(machine->cache, machine->memory, LINE);
    machine->cached = true;
}

static int processor_reads(struct machine *machine, int at)
{
    fill(machine);
    return machine->cache[at];
}

static void processor_writes(struct machine *machine, int at, int value)
{
    fill(machine);
    machine->cache[at] = (unsigned char)value;
    machine->dirty = true; // memory still has the old value
}

// What dma_map_single does: dirty data goes to memory, where the device finds it.
static void clean(struct machine *machine)
{
    if (machine->dirty)
        memcpy(machine->memory, machine->cache, LINE);
    machine->dirty = false;
}

// What dma_unmap_single does, unless the direction is DMA_TO_DEVICE: the processor
// will read from memory again.
static void invalidate(struct machine *machine)
{
    machine->cached = machine->dirty = false;
}
// ANCHOR_END: main

// The processor writes 7, and the device reads.
static int to_device(bool synchronise)
{
    struct machine machine = {0};
    processor_writes(&machine, 0, 7);
    if (synchronise)
        clean(&machine);
    return machine.memory[0];
}

// The processor has read the buffer before. The device writes 7, and the processor reads again.
static int from_device(bool synchronise)
{
    struct machine machine = {0};
    processor_reads(&machine, 0);
    machine.memory[0] = 7;
    if (synchronise)
        invalidate(&machine);
    return processor_reads(&machine, 0);
}

struct seen {
    int buffer, counter;
};

// A cache may write back a dirty line at any time, to make room.
static void write_back(struct machine *machine)
{
    clean(machine);
    invalidate(machine);
}

// ANCHOR: shared
// The device writes 7 to the buffer. Meanwhile the processor counts in the same line.
static struct seen shared_line(void end(struct machine *machine))
{
    enum { BUFFER, COUNTER };
    struct machine machine = {0};
    processor_writes(&machine, COUNTER, 1);
    machine.memory[BUFFER] = 7;
    end(&machine);
    int seen = processor_reads(&machine, BUFFER);
    return (struct seen){seen, processor_reads(&machine, COUNTER)};
}
// ANCHOR_END: shared

int main(void)
{
    printf("                                without  with the DMA API\n");
    int to[] = {to_device(false), to_device(true)};
    printf("processor writes 7, device reads      %d  %d\n", to[0], to[1]);
    int from[] = {from_device(false), from_device(true)};
    printf("device writes 7, processor reads      %d  %d\n", from[0], from[1]);
    struct seen written_back = shared_line(write_back), dropped = shared_line(invalidate);
    printf("a counter in the same line:\n");
    printf("line written back: buffer %d, counter %d\n", written_back.buffer, written_back.counter);
    printf("line invalidated:  buffer %d, counter %d\n", dropped.buffer, dropped.counter);
    assert(to[0] == 0 && to[1] == 7 && from[0] == 0 && from[1] == 7);
    assert(written_back.buffer == 0 && written_back.counter == 1);
    assert(dropped.buffer == 7 && dropped.counter == 0);
}
