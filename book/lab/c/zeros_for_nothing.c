// A large block from calloc is fresh from the kernel and needs no page. Filling a block with ones touches every page.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

// Longer than the 2 MiB by which glibc 2.43 grows its heap on aarch64: a block that fits there is not mapped.
// The block may start inside a page, and then contains one whole page less.
enum { PAGES = 1024, WHOLE = PAGES - 1 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Returns how many of the WHOLE whole pages in the block are present in the page table: bit 63 of /proc/self/pagemap.
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
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // malloc writes its header before the block. With a huge page that write would bring in the whole block.
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
