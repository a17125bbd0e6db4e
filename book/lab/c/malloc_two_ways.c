// glibc's malloc takes 1 KiB from the heap below the program break, and gives 256 KiB a separate mapping.

#include <assert.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

// Returns the path in the line of /proc/self/maps that contains `address`.
static const char *path(const void *address, char *line, int size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    assert(maps != NULL);
    while (fgets(line, size, maps) != NULL) {
        uintptr_t start, end;
        int name = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &start, &end, &name) >= 2 &&
            (uintptr_t)address >= start && (uintptr_t)address < end) {
            fclose(maps);
            line[strcspn(line, "\n")] = '\0';
            return line + name;
        }
    }
    assert(!"the address is mapped");
    return NULL;
}

int main(void)
{
    const size_t kib = 1024;
    // ANCHOR: main
    size_t before = mallinfo2().hblks;
    void *small = allocate(kib);
    size_t after_small = mallinfo2().hblks;

    use_up_reserve(); // otherwise the next block might fit into the heap
    size_t bytes = mallinfo2().hblkhd;
    void *large = allocate(256 * kib);
    size_t after_large = mallinfo2().hblks;
    size_t mapped = mallinfo2().hblkhd - bytes;
    // ANCHOR_END: main

    long page = sysconf(_SC_PAGESIZE);
    assert(page > 0);
    size_t more = (mapped - 256 * kib) / (size_t)page;
    uintptr_t into = (uintptr_t)large % (size_t)page;
    char small_line[512], large_line[512];
    const char *small_path = path(small, small_line, sizeof small_line);
    const char *large_path = path(large, large_line, sizeof large_line);
    size_t small_maps = after_small - before;
    size_t large_maps = after_large - after_small;
    printf("1 KiB:   %zu separate mappings, path \"%s\"\n", small_maps, small_path);
    printf("256 KiB: %zu separate mapping, path \"%s\"\n", large_maps, large_path);
    printf("its length: 256 KiB and %zu page\n", more);
    printf("the block begins %" PRIuPTR " bytes after the mapping\n", into);
    assert(small_maps == 0 && strcmp(small_path, "[heap]") == 0);
    assert(large_maps == 1 && strcmp(large_path, "") == 0);
    assert(mapped == 256 * kib + (size_t)page && more == 1 && into == 16);
    return 0;
}
