// free returns only the end of the heap to the kernel, malloc_trim also the rest. free unmaps a mapped block.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCKS = 64, LEN = 100 * 1024 };

static size_t page;

// Allocates a block and writes every byte.
static char *written(size_t len)
{
    char *volatile block = malloc(len);
    assert(block != NULL);
    memset(block, 1, len);
    return block;
}

// Allocates the reserve at the end of the heap until less than 1 KiB of it is left.
static void use_up_reserve(void)
{
    void *volatile first = malloc(1); // the first call sets up the heap
    assert(first != NULL);
    for (;;) {
        size_t reserve = mallinfo2().keepcost;
        if (reserve < 1024)
            return;
        void *volatile got = malloc(reserve - 512);
        assert(got != NULL);
    }
}

// Returns how many of the `pages` pages from `start` are present in the page table: bit 63 of /proc/self/pagemap.
static size_t resident_pages(uintptr_t start, size_t pages)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    assert(pagemap != -1);
    size_t present = 0;
    for (size_t number = 0; number < pages; number++) {
        uint64_t entry;
        off_t offset = (off_t)((start / page + number) * sizeof entry);
        ssize_t got = pread(pagemap, &entry, sizeof entry, offset);
        assert(got == sizeof entry);
        present += entry >> 63;
    }
    close(pagemap);
    return present;
}

static const char *share(size_t resident, size_t pages)
{
    return resident == 0 ? "none" : resident == pages ? "all" : "some";
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    assert(size > 0);
    page = (size_t)size;
    // ANCHOR: main
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = written(LEN);
    // Count the pages between the first and the last block, without the pages at either
    // end, which also hold other data.
    uintptr_t start = (uintptr_t)blocks[0] + page;
    size_t pages = ((uintptr_t)blocks[BLOCKS - 1] - start) / page - 1;

    size_t full = resident_pages(start, pages);
    char *full_break = sbrk(0);
    for (int i = 0; i < BLOCKS - 1; i++)
        free(blocks[i]);
    size_t freed = resident_pages(start, pages);
    char *freed_break = sbrk(0);
    int trimmed = malloc_trim(0);
    size_t after_trim = resident_pages(start, pages);
    free(blocks[BLOCKS - 1]);
    size_t after_last = resident_pages(start, pages);
    char *last_break = sbrk(0);
    // ANCHOR_END: main

    // ANCHOR: mapped
    use_up_reserve();
    size_t before = mallinfo2().hblks;
    char *block = written(64 * page);
    size_t mapped = mallinfo2().hblks - before;
    uintptr_t first = (uintptr_t)block / page * page;
    free(block);
    unsigned char residence;
    int gone = mincore((void *)first, page, &residence) == -1 ? errno : 0;
    // ANCHOR_END: mapped

    printf("in the heap         resident\n");
    printf("all blocks written  %s\n", share(full, pages));
    printf("all freed but one   %s\n", share(freed, pages));
    printf("malloc_trim(0)      %s\n", share(after_trim, pages));
    printf("the last one freed  none, and the break falls\n");
    printf("in %zu mapping\n", mapped);
    printf("written and freed   %s\n", gone == ENOMEM ? "Err(ENOMEM)" : "Ok(0)");
    assert(full == pages && freed == pages && after_trim == 0);
    assert(freed_break == full_break && trimmed == 1);
    assert(after_last == 0 && full_break - last_break > BLOCKS * LEN / 2);
    assert(mapped == 1 && gone == ENOMEM);
    return 0;
}
