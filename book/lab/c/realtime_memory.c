// A loop over malloc and a deep stack faults each time; with mallopt, prefaulted heap and stack, and mlockall, never.

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { KIB = 1024, BLOCKS = 64, LEN = 64 * KIB, STACK = 256 * KIB };

// Page faults of this thread so far.
static long faults(void) {
    struct rusage usage;
    int error = getrusage(RUSAGE_THREAD, &usage);
    assert(error == 0);
    return usage.ru_minflt + usage.ru_majflt;
}

// A block with each byte written.
static void *written(size_t len) {
    void *volatile block = malloc(len);
    assert(block != NULL);
    memset(block, 1, len);
    return block;
}

// Writes that much of the stack.
static __attribute__((noinline)) void deep_call(size_t len) {
    char room[len];
    memset(room, 1, len);
    __asm__ volatile("" : : "r"(room) : "memory");
}

// The loop that must not wait: blocks from malloc, and a deep call. Its page faults.
static __attribute__((noinline)) long work(void) {
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
// What mlockall returns; memory is prefaulted in any case.
static int prepare(void) {
    // malloc keeps all that it gets, and maps nothing for one block alone.
    int set = mallopt(M_TRIM_THRESHOLD, -1);
    assert(set == 1);
    set = mallopt(M_MMAP_MAX, 0);
    assert(set == 1);
    // Twice what the loop takes: by then the free part of the heap and the end of
    // the stack may lie elsewhere.
    free(written(2 * BLOCKS * LEN));
    deep_call(2 * STACK);
    return mlockall(MCL_CURRENT | MCL_FUTURE);
}
// ANCHOR_END: main

int main(void) {
    long first = work();
    long second = work();
    int locked = prepare();
    if (locked == -1)
        perror("prefaulted, and not locked: mlockall");
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
