// Compares smaps, pagemap and mincore: the zero page is present but not in Rss, shared memory counts as a file's.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

// Maps anonymous memory between two inaccessible pages, so that the kernel cannot merge it with another mapping.
static unsigned char *map_isolated(int flags)
{
    size_t len = PAGES * page_size;
    unsigned char *reserved = mmap(NULL, len + 2 * page_size, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(reserved != MAP_FAILED, "mmap");
    void *start = mmap(reserved + page_size, len, PROT_READ | PROT_WRITE,
                       flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Returns a field of /proc/self/smaps, which is in kB, as a number of pages.
static int smaps_pages(const unsigned char *address, const char *field)
{
    FILE *smaps = fopen("/proc/self/smaps", "r");
    must(smaps != NULL, "/proc/self/smaps");
    size_t length = strlen(field);
    unsigned long kilobytes = 0;
    bool inside = false, found = false;
    char text[8192];
    while (fgets(text, sizeof text, smaps) != NULL) {
        unsigned long start, end;
        if (sscanf(text, "%lx-%lx", &start, &end) == 2)
            inside = start <= (uintptr_t)address && (uintptr_t)address < end;
        if (inside && strncmp(text, field, length) == 0 && text[length] == ':')
            found = sscanf(text + length + 1, "%lu kB", &kilobytes) == 1;
    }
    must(fclose(smaps) == 0, "fclose");
    must(found && kilobytes * 1024 % page_size == 0, field);
    return (int)(kilobytes * 1024 / page_size);
}

struct counts {
    int size, rss, anonymous, present, of_file, in_core;
};

// ANCHOR: count
// Counts pages of the mapping: three fields of smaps, two bits of pagemap, and mincore.
static struct counts count(unsigned char *start)
{
    struct counts counts = {
        .size = smaps_pages(start, "Size"),
        .rss = smaps_pages(start, "Rss"),
        .anonymous = smaps_pages(start, "Anonymous"),
    };
    uint64_t entries[PAGES];
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap >= 0, "/proc/self/pagemap");
    off_t first = (off_t)((uintptr_t)start / page_size * sizeof entries[0]);
    ssize_t length = pread(pagemap, entries, sizeof entries, first);
    must(length == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    unsigned char in_core[PAGES];
    must(mincore(start, PAGES * page_size, in_core) == 0, "mincore");
    for (int page = 0; page < PAGES; page++) {
        counts.present += entries[page] >> 63 & 1;
        counts.of_file += entries[page] >> 61 & 1;
        counts.in_core += in_core[page] & 1;
    }
    return counts;
}
// ANCHOR_END: count

static void show(const char *what, unsigned char *start, struct counts expected)
{
    struct counts counts = count(start);
    printf("%-19s %4d %4d %10d ", what, counts.size, counts.rss, counts.anonymous);
    printf("%8d %5d %8d\n", counts.present, counts.of_file, counts.in_core);
    assert(counts.size == expected.size && counts.rss == expected.rss);
    assert(counts.anonymous == expected.anonymous && counts.present == expected.present);
    assert(counts.of_file == expected.of_file && counts.in_core == expected.in_core);
}

static void read_pages(volatile unsigned char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        (void)start[page * page_size];
}

static void write_pages(volatile unsigned char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 1;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is counted separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    printf("                        smaps              pagemap\n");
    printf("                    Size  Rss  Anonymous  present  file  mincore\n");

    // ANCHOR: main
    unsigned char *private = map_isolated(MAP_PRIVATE);
    show("private, untouched", private, (struct counts){256, 0, 0, 0, 0, 0});
    read_pages(private);
    show("private, read", private, (struct counts){256, 0, 0, 256, 0, 256});
    write_pages(private);
    show("private, written", private, (struct counts){256, 256, 256, 256, 0, 256});

    unsigned char *shared = map_isolated(MAP_SHARED);
    show("shared, untouched", shared, (struct counts){256, 0, 0, 0, 0, 0});
    read_pages(shared);
    show("shared, read", shared, (struct counts){256, 256, 0, 256, 256, 256});
    write_pages(shared);
    show("shared, written", shared, (struct counts){256, 256, 0, 256, 256, 256});
    // ANCHOR_END: main
}
