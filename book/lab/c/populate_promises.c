// MAP_POPULATE does not report failure, and it does not lock the pages that it brings in.

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

// The value in <linux/mman.h> since Linux 5.14. Older C libraries do not define it.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

// Few enough for an unprivileged process to lock twice: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 2 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *map_populated(int prot)
{
    void *start = mmap(NULL, PAGES * page_size, prot,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
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

struct shown {
    int error, resident;
};

// Prints the result of a call, and how many pages are resident after it.
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

static bool matches(struct shown shown, int error, int resident)
{
    return shown.error == error && shown.resident == resident;
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
    printf("no access to the mapping:\n");
    unsigned char *start = map_populated(PROT_NONE);
    struct shown mapped = show("mmap with MAP_POPULATE", 0, start);
    int result = madvise(start, len, MADV_POPULATE_WRITE);
    struct shown advised = show("MADV_POPULATE_WRITE", result, start);
    struct shown locked = show("mlock", mlock(start, len), start);

    printf("to read and to write:\n");
    start = map_populated(PROT_READ | PROT_WRITE);
    struct shown mapped_rw = show("mmap with MAP_POPULATE", 0, start);
    result = madvise(start, len, MADV_DONTNEED);
    struct shown discarded = show("MADV_DONTNEED", result, start);
    struct shown locked_again = show("mlock", mlock(start, len), start);
    result = madvise(start, len, MADV_DONTNEED);
    struct shown refused = show("MADV_DONTNEED", result, start);
    // ANCHOR_END: main
    assert(matches(mapped, 0, 0));
    assert(matches(advised, EINVAL, 0));
    assert(matches(locked, ENOMEM, 0));
    assert(matches(mapped_rw, 0, PAGES));
    assert(matches(discarded, 0, 0));
    assert(matches(locked_again, 0, PAGES));
    assert(matches(refused, EINVAL, PAGES));
}
