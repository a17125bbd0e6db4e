// The mmap threshold is 128 KiB including the block's header and padding, but malloc uses free heap memory first.

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Allocates a block. The volatile variable keeps the compiler from removing the call.
static void *allocate(size_t len)
{
    void *volatile got = malloc(len);
    assert(got != NULL);
    return got;
}

// Allocates the reserve at the end of the heap until less than 1 KiB of it is left.
static void use_up_reserve(void)
{
    void *volatile first = malloc(1); // the first call sets up the heap
    assert(first != NULL);
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        allocate(reserve - 512);
    }
}

// Allocates a block of `len` bytes, and returns where malloc placed it.
static const char *place(size_t len)
{
    size_t before = mallinfo2().hblks;
    allocate(len);
    return mallinfo2().hblks > before ? "Mapping" : "Heap";
}

int main(void)
{
    // ANCHOR: main
    const size_t limit = 128 * 1024;
    use_up_reserve();
    const char *seen[3];
    seen[0] = place(limit - 23); // less than 1 KiB is left in the heap: a mapping
    seen[1] = place(limit - 24); // grows the heap by the request plus 128 KiB (M_TOP_PAD)
    seen[2] = place(limit - 23); // fits into the new reserve
    // ANCHOR_END: main
    printf("128 KiB less 23: %s\n", seen[0]);
    printf("128 KiB less 24: %s\n", seen[1]);
    printf("128 KiB less 23: %s\n", seen[2]);
    assert(strcmp(seen[0], "Mapping") == 0);
    assert(strcmp(seen[1], "Heap") == 0);
    assert(strcmp(seen[2], "Heap") == 0);
    return 0;
}
