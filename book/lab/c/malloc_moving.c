// Freeing a mapped block of at most 32 MiB moves the threshold up to its size: the next one comes from the heap.

#include <assert.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

// Takes the reserve at the heap's end until less than 1 KiB of it is left.
static void use_up_reserve(void) {
    void *volatile first = malloc(1); // the first call of all sets the heap up
    assert(first != NULL);
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        void *volatile got = malloc(reserve - 512);
        assert(got != NULL);
    }
}

// A block, and whether it lies in a mapping of its own. The heap had nothing in reserve for it.
static void *block(size_t len, bool *mapped) {
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

// Whether malloc maps a block of that length, and, once that is freed, whether it
// maps the next one.
static struct seen twice(size_t len) {
    struct seen seen;
    free(block(len, &seen.first));
    block(len, &seen.second);
    return seen;
}

int main(void) {
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
