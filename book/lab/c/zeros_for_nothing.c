// A large block of zeros from calloc is fresh from the kernel, and touches no page; one of ones touches them all.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

// Longer than the 2 MiB by which glibc 2.43 extends its heap on aarch64: what fits in there is not mapped.
// It may begin inside a page: WHOLE whole pages it has in any case.
enum { PAGES = 1024, WHOLE = PAGES - 1 };

static size_t page_size;

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// How many of the whole pages in a block of PAGES pages are resident: bit 63 of /proc/self/pagemap.
static int resident(const char *block)
{
    uint64_t entries[WHOLE];
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap >= 0, "/proc/self/pagemap");
    uintptr_t first = ((uintptr_t)block + page_size - 1) / page_size;
    ssize_t length = pread(pagemap, entries, sizeof entries, (off_t)(first * sizeof entries[0]));
    must(length == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    int found = 0;
    for (int page = 0; page < WHOLE; page++)
        found += entries[page] >> 63;
    return found;
}

int main(void)
{
    long known = sysconf(_SC_PAGESIZE);
    must(known > 0, "sysconf");
    page_size = (size_t)known;
    // A huge page would be brought in as a whole, by malloc's own header.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    // ANCHOR: main
    size_t len = PAGES * page_size;
    char *zeros = calloc(len, 1);
    must(zeros != NULL, "calloc");
    int of_zeros = resident(zeros);
    char *ones = malloc(len);
    must(ones != NULL, "malloc");
    memset(ones, 1, len);
    int of_ones = resident(ones);
    // ANCHOR_END: main
    printf("zeros: %4d of %d whole pages resident\n", of_zeros, WHOLE);
    printf("ones:  %4d of %d whole pages resident\n", of_ones, WHOLE);
    assert(of_zeros == 0 && of_ones == WHOLE);
    free(zeros);
    free(ones);
}
