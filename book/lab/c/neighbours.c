// Two adjacent mappings are separate for the program, but the kernel merges them into one line of /proc/self/maps.

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Returns the length of the range in the line of /proc/self/maps that contains `address`.
static size_t line_length(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps != NULL, "/proc/self/maps");
    size_t length = 0;
    char text[8192];
    while (fgets(text, sizeof text, maps) != NULL) {
        unsigned long start, end;
        must(sscanf(text, "%lx-%lx", &start, &end) == 2, "parsing /proc/self/maps");
        if (start <= (uintptr_t)address && (uintptr_t)address < end)
            length = end - start;
    }
    must(fclose(maps) == 0, "fclose");
    return length;
}

static unsigned char *map_at(void *address, size_t length, int prot, int flags)
{
    void *start = mmap(address, length, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

int main(void)
{
    // ANCHOR: main
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    size_t page = (size_t)size;

    // Reserve four inaccessible pages, so that no other mapping is next to these two.
    unsigned char *reserved = map_at(NULL, 4 * page, PROT_NONE, 0);
    unsigned char *first = reserved + page;
    unsigned char *second = first + page;
    map_at(first, page, PROT_READ | PROT_WRITE, MAP_FIXED);
    size_t alone = line_length(first) / page;
    map_at(second, page, PROT_READ | PROT_WRITE, MAP_FIXED);
    size_t joined = line_length(first) / page;
    printf("one mapping:  a line of %zu page\n", alone);
    printf("two mappings: a line of %zu pages\n", joined);

    *(volatile unsigned char *)first = 1;
    int other = *(volatile unsigned char *)second;
    printf("1 written to the first: the second holds %d\n", other);

    must(munmap(first, page) == 0, "munmap");
    size_t left = line_length(second) / page;
    printf("one unmapped: a line of %zu page\n", left);
    // ANCHOR_END: main
    assert(alone == 1 && joined == 2 && other == 0 && left == 1);
}
