// A loop with malloc and a deep stack faults each time. With mallopt, prefaulting and mlockall it no longer faults.

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { KIB = 1024, BLOCKS = 64, LEN = 64 * KIB, STACK = 256 * KIB };

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    int error = getrusage(RUSAGE_THREAD, &usage);
    assert(error == 0);
    return usage.ru_minflt + usage.ru_majflt;
}

// Allocates a block and writes every byte.
static void *written(size_t len)
{
    void *volatile block = malloc(len);
    assert(block != NULL);
    memset(block, 1, len);
    return block;
}

// Writes `len` bytes of stack.
static __attribute__((noinline)) void deep_call(size_t len)
{
    char buffer[len];
    memset(buffer, 1, len);
    __asm__ volatile("" : : "r"(buffer) : "memory");
}

// The work of a real-time loop: blocks from malloc, and a deep call. Returns the number of page faults.
static __attribute__((noinline)) long work(void)
{
    long before = faults();
    void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = written(LEN);
    for (int i = BLOCKS - 1; i >= 0; i--)
        free(blocks[i]);
    deep_call(STACK);
    return faults() - before;
}

// ANCHOR: main
// Prefaults heap and stack, and locks memory. Returns the result of mlockall.
static int prepare(void)
{
    // malloc no longer returns memory to the kernel, and no longer maps single blocks.
    int accepted = mallopt(M_TRIM_THRESHOLD, -1);
    assert(accepted == 1);
    accepted = mallopt(M_MMAP_MAX, 0);
    assert(accepted == 1);
    // Prefault twice what the loop needs, because its heap blocks and its stack may
    // start at other addresses than those used here.
    free(written(2 * BLOCKS * LEN));
    deep_call(2 * STACK);
    return mlockall(MCL_CURRENT | MCL_FUTURE);
}
// ANCHOR_END: main

int main(void)
{
    long first = work();
    long second = work();
    int locked = prepare();
    if (locked == -1)
        perror("memory is prefaulted but not locked: mlockall");
    long prepared[3];
    for (int i = 0; i < 3; i++)
        prepared[i] = work();
    printf("first time:   faults: %s\n", first > 0 ? "true" : "false");
    printf("second time:  faults: %s\n", second > 0 ? "true" : "false");
    printf("prepared:     [%ld, %ld, %ld] faults\n", prepared[0], prepared[1], prepared[2]);
    assert(first > 0 && second > 0);
    assert(prepared[0] == 0 && prepared[1] == 0 && prepared[2] == 0);
    return 0;
}
