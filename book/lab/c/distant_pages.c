// Pages that are far apart need more page tables than pages that are next to each other.

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PAGES = 16 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static void write_page(char *start);

// ANCHOR: main
// Returns the size of this process's page tables in pages. The table of the highest
// level is not counted.
static size_t table_pages(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    must(status != NULL, "/proc/self/status");
    char line[256];
    size_t kib = 0;
    while (fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmPTE: %zu kB", &kib) == 1)
            break;
    must(fclose(status) == 0, "fclose");
    return kib * 1024 / page_size;
}

// Writes to 16 pages, and returns how many pages the page tables have grown by.
static size_t grows_by(char *start, size_t distance)
{
    size_t before = table_pages();
    for (size_t number = 1; number <= PAGES; number++)
        write_page(start + number * distance);
    return table_pages() - before;
}
// ANCHOR_END: main

// Makes one page of the reservation writable, and writes to it.
static void write_page(char *start)
{
    must(mprotect(start, page_size, PROT_READ | PROT_WRITE) == 0, "mprotect");
    *(volatile char *)start = 1;
}

// Returns the address, rounded up to a multiple of `size`.
static char *round_up(char *address, size_t size)
{
    return address + (size - (uintptr_t)address % size) % size;
}

// Reserves addresses. Returns a multiple of `upper` such that the next `PAGES` multiples are reserved as well, and that
// one table of the next higher level, which covers `top` bytes, covers them all. Returns NULL if there are too few
// addresses.
static char *reserve(size_t upper, size_t top)
{
    char *reserved = mmap(NULL, (2 * PAGES + 3) * upper, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED)
        return NULL;
    char *first = round_up(reserved, upper);
    char *next = round_up(first, top);
    return next <= first + PAGES * upper ? next : first;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    size_t entries = page_size / sizeof(uint64_t); // of one table
    size_t last_level = entries * page_size;       // the bytes that one table of the last level covers
    size_t upper_level = entries * last_level;
    char *start = sizeof(size_t) < 8 ? NULL : reserve(upper_level, entries * upper_level);
    if (start == NULL) {
        printf("there are not enough addresses for pages that are so far apart\n");
        return 77;
    }
    // The first page brings in the tables that lead to the start of the reservation.
    write_page(start);
    size_t adjacent = grows_by(start, page_size);
    size_t last = grows_by(start, last_level);
    size_t upper = grows_by(start, upper_level);
    printf("16 more pages in one table:            %2zu pages of tables\n", adjacent);
    printf("each in another last-level table:      %2zu\n", last);
    printf("each in another table one level above: %2zu\n", upper);
    assert(adjacent == 0 && last == PAGES && upper == 2 * PAGES);
}
