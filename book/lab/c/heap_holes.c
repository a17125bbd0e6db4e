// glibc's malloc reuses cached blocks in reverse order, joins free neighbours, and cannot join what is not adjacent.

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __GLIBC__

// Returns the block's address as a number, which stays comparable after `free`.
static uintptr_t allocate(size_t len)
{
    void *volatile block = malloc(len);
    assert(block != NULL);
    return (uintptr_t)block;
}

static void release(uintptr_t block)
{
    free((void *)block);
}

static const char *place(uintptr_t block, uintptr_t last)
{
    return block > last ? "above all of them" : "in a hole";
}

int main(void)
{
    // The first call sets up the heap.
    allocate(1);
    // ANCHOR: main
    uintptr_t small[3], again[3], large[8];
    for (int i = 0; i < 3; i++)
        small[i] = allocate(100);
    for (int i = 0; i < 3; i++)
        release(small[i]);
    for (int i = 0; i < 3; i++)
        again[i] = allocate(100);

    for (int i = 0; i < 8; i++)
        large[i] = allocate(20 * 1024);
    for (int hole = 0; hole < 8; hole += 2)
        release(large[hole]);
    uintptr_t split = allocate(40 * 1024);
    release(large[3]);
    uintptr_t joined = allocate(60 * 1024);
    // ANCHOR_END: main
    int order[3] = {0};
    for (int i = 0; i < 3; i++)
        for (int old = 0; old < 3; old++)
            if (again[i] == small[old])
                order[i] = old + 1;
    printf("freed: blocks 1, 2, 3; allocated again: blocks [%d, %d, %d]\n", order[0], order[1], order[2]);
    printf("40 KiB, with four holes of 20 KiB: %s\n", place(split, large[7]));
    printf("60 KiB, when the block between two holes is free: %s\n", place(joined, large[7]));
    assert(order[0] == 3 && order[1] == 2 && order[2] == 1);
    assert(split > large[7]);
    assert(joined == large[2]);
    return 0;
}

#else

int main(void)
{
    puts("this program needs glibc's malloc");
    return 77;
}

#endif
