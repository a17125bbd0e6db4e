// MAP_POPULATE, MADV_POPULATE_WRITE and mlock prefault pages. After a read-only MAP_POPULATE, writes still fault.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

// The value in <linux/mman.h> since Linux 5.14. Older C libraries do not define it.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 4 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *map(int prot, int flags)
{
    void *start = mmap(NULL, PAGES * page_size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static void write_pages(volatile unsigned char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 0;
}

// ANCHOR: populate
// Prefaults every page of a mapping for writing, so that each has its own frame.
static void populate_write(unsigned char *start)
{
    if (madvise(start, PAGES * page_size, MADV_POPULATE_WRITE) == 0)
        return;
    // Linux before 5.14 does not know this advice. Writing to each page has the same
    // effect, as long as nothing else accesses the memory.
    must(errno == EINVAL, "madvise");
    write_pages(start);
}
// ANCHOR_END: populate

// ANCHOR: main
static unsigned char *nothing(void)
{
    return map(PROT_READ | PROT_WRITE, 0);
}

static unsigned char *flag(void)
{
    return map(PROT_READ | PROT_WRITE, MAP_POPULATE);
}

static unsigned char *read_only(void)
{
    return map(PROT_READ, MAP_POPULATE);
}

static unsigned char *advice(void)
{
    unsigned char *start = map(PROT_READ | PROT_WRITE, 0);
    populate_write(start);
    return start;
}

static unsigned char *locked(void)
{
    unsigned char *start = map(PROT_READ | PROT_WRITE, 0);
    must(mlock(start, PAGES * page_size) == 0, "mlock");
    return start;
}

struct counts {
    int in_advance, resident, later;
};

static const struct way {
    const char *name;
    unsigned char *(*prepare)(void);
    struct counts expected;
} ways[] = {
    {"nothing", nothing, {0, 0, 4}},
    {"MAP_POPULATE", flag, {4, 4, 0}},
    {"MAP_POPULATE, PROT_READ", read_only, {4, 4, 4}},
    {"MADV_POPULATE_WRITE", advice, {4, 4, 0}},
    {"mlock", locked, {4, 4, 0}},
};
// ANCHOR_END: main

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// Returns how many pages are present in the page table: bit 63 of /proc/self/pagemap.
static int resident_pages(const unsigned char *start)
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

// Returns the page faults during `prepare`, the pages present after it, and the page faults when they are written.
static struct counts count(unsigned char *(*prepare)(void))
{
    size_t len = PAGES * page_size;
    long before = faults();
    unsigned char *start = prepare();
    long in_advance = faults() - before;
    int resident = resident_pages(start);
    must(mprotect(start, len, PROT_READ | PROT_WRITE) == 0, "mprotect");
    before = faults();
    write_pages(start);
    long later = faults() - before;
    must(munmap(start, len) == 0, "munmap");
    return (struct counts){(int)in_advance, resident, (int)later};
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");

    size_t number = sizeof ways / sizeof ways[0];
    // The first run also faults in the program's own code, so its counts are ignored.
    for (size_t way = 0; way < number; way++)
        count(ways[way].prepare);
    printf("                         faults  resident  faults at the writes\n");
    for (size_t way = 0; way < number; way++) {
        struct counts counts = count(ways[way].prepare);
        printf("%-23s %7d %9d %21d\n", ways[way].name, counts.in_advance, counts.resident,
               counts.later);
        assert(counts.in_advance == ways[way].expected.in_advance);
        assert(counts.resident == ways[way].expected.resident);
        assert(counts.later == ways[way].expected.later);
    }
}
