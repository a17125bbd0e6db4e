// MAP_POPULATE, MADV_POPULATE_WRITE and mlock take the faults in advance; populated read-only, the writes still fault.

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

// As in <linux/mman.h> since 5.14, for older C libraries.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

// Few enough to be locked by everybody: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 4 };

static size_t page_size;

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *map(int rights, int flags)
{
    void *start = mmap(NULL, PAGES * page_size, rights, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static void write_pages(volatile unsigned char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 0;
}

// ANCHOR: populate
// Brings in every page of a mapping, each with a frame of its own.
static void populate_write(unsigned char *start)
{
    if (madvise(start, PAGES * page_size, MADV_POPULATE_WRITE) == 0)
        return;
    // Linux before 5.14 does not know this advice. A write is as good, while nobody
    // else uses the memory.
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

static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// Pages that the page table holds: bit 63 of /proc/self/pagemap.
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

// How many faults `prepare` takes, how many pages are there then, and how many faults it takes to write them.
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
    long known = sysconf(_SC_PAGESIZE);
    must(known > 0, "sysconf");
    page_size = (size_t)known;
    // No huge pages, so that each page faults for itself.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");

    size_t number = sizeof ways / sizeof ways[0];
    // The first time, this program's own code is touched too: that counts for nothing.
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
