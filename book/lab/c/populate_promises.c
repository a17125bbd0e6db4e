// MAP_POPULATE does not say that it failed, and what it brought in is not locked.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

// As in <linux/mman.h> since 5.14, for older C libraries.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

// Few enough to be locked by everybody, twice: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 2 };

static size_t page_size;

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *map_populated(int rights)
{
    void *start = mmap(NULL, PAGES * page_size, rights,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
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

struct shown {
    int error, resident;
};

// Shows what a call returned, and how many pages are resident after it.
static struct shown show(const char *call, int returned, const unsigned char *start)
{
    int error = returned == 0 ? 0 : errno;
    const char *result = error == 0        ? "Ok(())"
                         : error == EINVAL ? "Err(EINVAL)"
                         : error == ENOMEM ? "Err(ENOMEM)"
                                           : "another error";
    struct shown shown = {error, resident_pages(start)};
    printf("%-25s %s, %d of %d pages resident\n", call, result, shown.resident, PAGES);
    return shown;
}

static bool are(struct shown shown, int error, int resident)
{
    return shown.error == error && shown.resident == resident;
}

int main(void)
{
    long known = sysconf(_SC_PAGESIZE);
    must(known > 0, "sysconf");
    page_size = (size_t)known;
    // No huge pages, so that each page is resident for itself.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");

    // ANCHOR: main
    size_t len = PAGES * page_size;
    printf("no access to the mapping:\n");
    unsigned char *start = map_populated(PROT_NONE);
    struct shown mapped = show("mmap with MAP_POPULATE", 0, start);
    int result = madvise(start, len, MADV_POPULATE_WRITE);
    struct shown advised = show("MADV_POPULATE_WRITE", result, start);
    struct shown locked = show("mlock", mlock(start, len), start);

    printf("to read and to write:\n");
    start = map_populated(PROT_READ | PROT_WRITE);
    struct shown there = show("mmap with MAP_POPULATE", 0, start);
    result = madvise(start, len, MADV_DONTNEED);
    struct shown dropped = show("MADV_DONTNEED", result, start);
    struct shown held = show("mlock", mlock(start, len), start);
    result = madvise(start, len, MADV_DONTNEED);
    struct shown kept = show("MADV_DONTNEED", result, start);
    // ANCHOR_END: main
    assert(are(mapped, 0, 0));
    assert(are(advised, EINVAL, 0));
    assert(are(locked, ENOMEM, 0));
    assert(are(there, 0, PAGES));
    assert(are(dropped, 0, 0));
    assert(are(held, 0, PAGES));
    assert(are(kept, EINVAL, PAGES));
}
