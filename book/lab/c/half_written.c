// A mapping costs no memory until it is written to: only the written pages become resident.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static const size_t MIB = 1 << 20;

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *map_private(size_t length)
{
    void *start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Returns how many pages are present in the page table: bit 63 of /proc/self/pagemap.
static size_t resident_pages(const unsigned char *start, size_t pages)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap >= 0, "/proc/self/pagemap");
    size_t resident = 0;
    for (size_t page = 0; page < pages; page++) {
        uint64_t entry;
        off_t place = (off_t)(((uintptr_t)start / page_size + page) * sizeof entry);
        must(pread(pagemap, &entry, sizeof entry, place) == sizeof entry, "pread");
        resident += entry >> 63;
    }
    must(close(pagemap) == 0, "close");
    return resident;
}

int main(void)
{
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    must(prctl(PR_SET_THP_DISABLE, 1L, 0L, 0L, 0L) == 0, "prctl");
    // ANCHOR: main
    size_t pages = 512 * MIB / page_size;
    volatile unsigned char *start = map_private(512 * MIB);
    for (size_t page = 0; page < pages / 2; page++)
        start[page * page_size] = 1;
    size_t resident = resident_pages((const unsigned char *)start, pages) * page_size;
    printf("512 MiB mapped, %zu MiB resident\n", resident / MIB);
    // ANCHOR_END: main
    assert(resident == 256 * MIB);
}
