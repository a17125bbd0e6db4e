// Fresh anonymous memory reads as zero, and the kernel maps whole pages.

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// MAP_ANON is the older name of the same flag.
static_assert(MAP_ANON == MAP_ANONYMOUS, "MAP_ANON");

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    size_t page_size = (size_t)size;

    // ANCHOR: ask
    size_t asked = 1;
    unsigned char *start = mmap(NULL, asked, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    // ANCHOR_END: ask
    // ANCHOR: look
    // The kernel maps whole pages, so the rest of the page is mapped as well.
    for (size_t byte = 0; byte < page_size; byte++)
        assert(start[byte] == 0);
    // ANCHOR_END: look
    assert((uintptr_t)start % page_size == 0);
    printf("asked for %zu byte\n", asked);
    printf("the whole page reads as zero\n");
    printf("the address is a multiple of the page size\n");
}
