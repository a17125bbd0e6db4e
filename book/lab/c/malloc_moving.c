// Freeing a mapped block raises the mmap threshold to its size, up to 32 MiB. The next one is in the heap.

#include <assert.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

// Allocates the reserve at the end of the heap until less than 1 KiB of it is left.
static void use_up_reserve(void)
{
    void *volatile first = malloc(1); // the first call sets up the heap
    assert(first != NULL);
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        void *volatile got = malloc(reserve - 512);
        assert(got != NULL);
    }
}

// Allocates a block with no reserve left in the heap. Stores in `mapped` whether the block has its own mapping.
static void *allocate(size_t len, bool *mapped)
{
    use_up_reserve();
    size_t before = mallinfo2().hblks;
    void *volatile got = malloc(len);
    assert(got != NULL);
    *mapped = mallinfo2().hblks > before;
    return got;
}

// ANCHOR: main
struct seen {
    bool first, second;
};

// Allocates a block, frees it, and allocates another of the same length. Returns for
// each whether malloc mapped it.
static struct seen twice(size_t len)
{
    struct seen seen;
    free(allocate(len, &seen.first));
    allocate(len, &seen.second);
    return seen;
}

int main(void)
{
    const size_t mib = 1024 * 1024;
    struct seen seen[5];
    seen[0] = twice(mib / 4);
    seen[1] = twice(mib / 2);
    seen[2] = twice(mib / 4);
    seen[3] = twice(16 * mib);
    seen[4] = twice(32 * mib);
    // ANCHOR_END: main
    const char *lengths[5] = {"256 KiB", "512 KiB", "256 KiB", "16 MiB", "32 MiB"};
    const struct seen expected[5] = {
        {true, false}, {true, false}, {false, false}, {true, false}, {true, true}};
    for (int i = 0; i < 5; i++) {
        printf("%7s: %-7s then, after free, %s\n", lengths[i], seen[i].first ? "mapping" : "heap",
               seen[i].second ? "mapping" : "heap");
        assert(seen[i].first == expected[i].first && seen[i].second == expected[i].second);
    }
    return 0;
}
