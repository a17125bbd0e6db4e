// A mapping of a file uses the page cache: a page can be in memory long before an entry of the page table leads to it.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 16 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}
// Creates a file of `PAGES` pages that has no name.
static int temporary_file(void)
{
    char path[] = "/tmp/cached_pages.XXXXXX";
    int file = mkstemp(path);
    char *zeros = calloc(PAGES, page_size);
    must(file != -1 && unlink(path) == 0 && zeros != NULL, "a temporary file");
    must(write(file, zeros, PAGES * page_size) == (ssize_t)(PAGES * page_size), "write");
    free(zeros);
    return file;
}

static unsigned char *map(int file)
{
    void *start = mmap(NULL, PAGES * page_size, PROT_READ, MAP_SHARED, file, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Counts the pages that are in the page cache.
static int in_core(unsigned char *start)
{
    unsigned char found[PAGES];
    must(mincore(start, PAGES * page_size, found) == 0, "mincore");
    int count = 0;
    for (int page = 0; page < PAGES; page++)
        count += found[page] & 1;
    return count;
}

// Counts the pages that are present in the page table: bit 63 of /proc/self/pagemap.
static int present(unsigned char *start)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap != -1, "/proc/self/pagemap");
    uint64_t entries[PAGES];
    off_t offset = (off_t)((uintptr_t)start / page_size * sizeof *entries);
    must(pread(pagemap, entries, sizeof entries, offset) == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    int count = 0;
    for (int page = 0; page < PAGES; page++)
        count += entries[page] >> 63;
    return count;
}

// Prints how many pages are in the page cache, and how many this process's page table has.
static void show(const char *name, unsigned char *start, int expected)
{
    int cached = in_core(start), mapped = present(start);
    printf("%-26s %10d %11d\n", name, cached, mapped);
    assert(cached == PAGES && mapped == expected);
}

static void read_pages(volatile unsigned char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        (void)start[page * page_size];
}

int main(void)
{
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    printf("                           page cache  page table\n");
    // ANCHOR: main
    int file = temporary_file();
    unsigned char *first = map(file);
    show("written by write(2), mapped", first, 0);
    read_pages(first);
    show("every page read", first, PAGES);
    unsigned char *second = map(file);
    show("mapped a second time", second, 0);
    // ANCHOR_END: main
}
