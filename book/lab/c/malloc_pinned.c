// M_MMAP_THRESHOLD fixes the threshold, so each free unmaps. Beyond M_MMAP_MAX mappings malloc uses the heap.

#include <assert.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

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
    allocate(1); // the first call sets up the heap
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        allocate(reserve - 512);
    }
}

// Allocates a block of `len` bytes, and returns whether malloc mapped it.
static bool mapped(size_t len)
{
    size_t before = mallinfo2().hblks;
    allocate(len);
    return mallinfo2().hblks > before;
}

static const char *place(bool mapped)
{
    return mapped ? "mapping" : "heap";
}

int main(void)
{
    const size_t kib = 1024;
    // ANCHOR: main
    void *hole = allocate(120 * kib);
    use_up_reserve();
    free(hole);

    int pinned = mallopt(M_MMAP_THRESHOLD, 64 * 1024);
    bool in_the_hole = mapped(70 * kib);
    use_up_reserve();
    bool limits[2];
    limits[0] = mapped(64 * kib - 23);
    limits[1] = mapped(64 * kib - 24);

    bool again[3];
    for (int i = 0; i < 3; i++) {
        use_up_reserve();
        size_t before = mallinfo2().hblks;
        void *large = allocate(256 * kib);
        again[i] = mallinfo2().hblks > before;
        free(large);
    }

    int bounded = mallopt(M_MMAP_MAX, (int)mallinfo2().hblks + 4);
    bool eight[8];
    for (int i = 0; i < 8; i++)
        eight[i] = mapped(100 * kib);
    // ANCHOR_END: main
    printf("with M_MMAP_THRESHOLD at 64 KiB\n");
    printf("70 KiB, 120 KiB free in the heap: %s\n", place(in_the_hole));
    printf("64 KiB less 23:                   %s\n", place(limits[0]));
    printf("64 KiB less 24:                   %s\n", place(limits[1]));
    printf("256 KiB, three times with free:   %s, %s, %s\n", place(again[0]), place(again[1]),
           place(again[2]));
    int count = 0;
    for (int i = 0; i < 8; i++)
        count += eight[i];
    printf("with M_MMAP_MAX at 4 more\n");
    printf("eight times 100 KiB:              %d mappings, %d in the heap\n", count, 8 - count);
    assert(pinned == 1 && bounded == 1);
    assert(!in_the_hole && limits[0] && !limits[1]);
    assert(again[0] && again[1] && again[2]);
    for (int i = 0; i < 8; i++)
        assert(eight[i] == (i < 4));
    return 0;
}
