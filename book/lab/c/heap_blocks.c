// glibc's malloc stores the size of a block in front of it, rounds it up, and gives a freed block out again.

#include <assert.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__GLIBC__) && SIZE_MAX > UINT32_MAX

// `volatile` keeps the compiler from removing a block or replacing its address.
static size_t usable_bytes(size_t len)
{
    void *volatile block = malloc(len);
    return malloc_usable_size(block);
}

int main(void)
{
    // The first call sets up the heap.
    void *volatile first = malloc(1);
    assert(first != NULL);
    // ANCHOR: main
    size_t one = usable_bytes(1), full = usable_bytes(24), more = usable_bytes(25);
    size_t *volatile block = malloc(24);
    assert(block != NULL);
    size_t header = block[-1]; // glibc's header is the word before the block
    uintptr_t address = (uintptr_t)block;
    free(block);
    void *volatile next = malloc(24);
    // ANCHOR_END: main
    printf("usable bytes of malloc(1), malloc(24), malloc(25): %zu, %zu, %zu\n", one, full, more);
    printf("the word before malloc(24): %zu\n", header);
    int same = (uintptr_t)next == address;
    printf("freed, then asked for again: %s address\n", same ? "the same" : "another");
    assert(one == 24 && full == 24 && more == 40 && header == 32 + 1 && same);
    return 0;
}

#else

int main(void)
{
    puts("this program looks at the headers of glibc's malloc on 64-bit systems");
    return 77;
}

#endif
