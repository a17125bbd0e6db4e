// Counts the resident pages of a buffer from mmap to munmap: none, those that were touched, all, and none again.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PAGES = 128 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Returns how many pages are present in the page table: bit 63 of /proc/self/pagemap.
static int resident_pages(const void *start)
{
    uint64_t entries[PAGES];
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap >= 0, "/proc/self/pagemap");
    off_t first = (off_t)((uintptr_t)start / page_size * sizeof entries[0]);
    ssize_t length = pread(pagemap, entries, sizeof entries, first);
    must(length == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    int resident = 0;
    for (int page = 0; page < PAGES; page++)
        resident += entries[page] >> 63;
    return resident;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page becomes resident separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");

    // ANCHOR: main
    size_t len = PAGES * page_size;
    unsigned char *start = mmap(NULL, len, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    int mapped = resident_pages(start);
    printf("mapped:              %3d of %d pages resident\n", mapped, PAGES);

    volatile unsigned char *bytes = start;
    int first_byte = bytes[0];
    int last_byte = bytes[len - 1];
    int read = resident_pages(start);
    printf("two bytes read:      %3d, and they are %d and %d\n", read, first_byte, last_byte);

    memset(start, 0xab, len);
    int filled = resident_pages(start);
    int kept = 0;
    for (size_t page = 0; page < PAGES; page++)
        kept += bytes[page * page_size] == 0xab;
    printf("filled with 0xab:    %3d, and %d begin with 0xab\n", filled, kept);

    must(munmap(start, len) == 0, "munmap");
    int unmapped = resident_pages(start);
    printf("unmapped:            %3d\n", unmapped);
    // ANCHOR_END: main
    assert(mapped == 0 && read == 2 && filled == PAGES && unmapped == 0);
    assert(first_byte == 0 && last_byte == 0 && kept == PAGES);
}
