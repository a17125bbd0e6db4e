// mmap itself brings in no pages. The first read of a page maps the zero page, and the first write then faults again.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PAGES = 256 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static volatile unsigned char *map_private(void)
{
    void *start = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// Returns how many pages are present in the page table: bit 63 of /proc/self/pagemap.
static int resident_pages(volatile unsigned char *start)
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

static void nothing(volatile unsigned char *byte)
{
    (void)byte;
}

static void read_byte(volatile unsigned char *byte)
{
    (void)*byte;
}

static void write_byte(volatile unsigned char *byte)
{
    *byte = 1;
}

struct counts {
    long faults;
    int resident;
};

// ANCHOR: count
// Calls `touch` for each page. Returns the number of page faults, and of present pages.
static struct counts count(const char *name, volatile unsigned char *start,
                           void (*touch)(volatile unsigned char *))
{
    long before = faults();
    for (size_t page = 0; page < PAGES; page++)
        touch(start + page * page_size);
    struct counts counts = {faults() - before, resident_pages(start)};
    printf("%-14s %3ld faults, %3d pages resident\n", name, counts.faults, counts.resident);
    return counts;
}
// ANCHOR_END: count

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");

    // The first run also faults in the program's own code, so its counts are ignored.
    printf("warming up\n");
    volatile unsigned char *warm = map_private();
    count("no touch", warm, nothing);
    count("each read", warm, read_byte);
    count("each written", warm, write_byte);

    printf("counting\n");
    // ANCHOR: main
    volatile unsigned char *start = map_private();
    struct counts untouched = count("no touch", start, nothing);
    struct counts read_once = count("each read", start, read_byte);
    struct counts written = count("each written", start, write_byte);
    struct counts again = count("written again", start, write_byte);
    // ANCHOR_END: main
    assert(untouched.faults == 0 && untouched.resident == 0);
    assert(read_once.faults == PAGES && read_once.resident == PAGES);
    assert(written.faults == PAGES && written.resident == PAGES);
    assert(again.faults == 0 && again.resident == PAGES);
}
