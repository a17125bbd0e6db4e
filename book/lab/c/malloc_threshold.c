// The threshold is 128 KiB with the block's header and rounding, but memory that malloc has already goes before it.

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A block whose call the compiler cannot leave out.
static void *block(size_t len) {
    void *volatile got = malloc(len);
    assert(got != NULL);
    return got;
}

// Takes the reserve at the heap's end until less than 1 KiB of it is left.
static void use_up_reserve(void) {
    void *volatile first = malloc(1); // the first call of all sets the heap up
    assert(first != NULL);
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        block(reserve - 512);
    }
}

// Where malloc puts a block of that length.
static const char *place(size_t len) {
    size_t before = mallinfo2().hblks;
    block(len);
    return mallinfo2().hblks > before ? "Mapping" : "Heap";
}

int main(void) {
    // ANCHOR: main
    const size_t limit = 128 * 1024;
    use_up_reserve();
    const char *seen[3];
    seen[0] = place(limit - 23); // the heap has less than 1 KiB left
    seen[1] = place(limit - 24); // so this one moves the break, by 128 KiB more than it needs
    seen[2] = place(limit - 23); // and the reserve is there
    // ANCHOR_END: main
    printf("128 KiB less 23: %s\n", seen[0]);
    printf("128 KiB less 24: %s\n", seen[1]);
    printf("128 KiB less 23: %s\n", seen[2]);
    assert(strcmp(seen[0], "Mapping") == 0);
    assert(strcmp(seen[1], "Heap") == 0);
    assert(strcmp(seen[2], "Heap") == 0);
    return 0;
}
