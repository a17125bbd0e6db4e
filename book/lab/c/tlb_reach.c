// The same number of cache lines takes longer to read if each lies in another page.

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    LINES = 8192,
    LINE = 64 / sizeof(size_t) // words in a cache line
};

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static double now(void)
{
    struct timespec time;
    must(clock_gettime(CLOCK_MONOTONIC, &time) == 0, "clock_gettime");
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static size_t packed(size_t line)
{
    return line * LINE;
}

// At a random offset in each page. At equal offsets, the lines would compete for a few places in the cache.
static size_t spread(size_t line)
{
    size_t page = page_size / sizeof(size_t);
    return line * page + (line * 40503 >> 8) * LINE % page;
}

// ANCHOR: main
// Reads 8192 cache lines in random order, several times. Each contains the place of
// the next one, so the processor cannot read two at a time.
static double nanoseconds_per_read(volatile size_t *memory, size_t place_of(size_t line))
{
    size_t line = 0;
    for (size_t count = 0; count < LINES; count++) {
        size_t next = (line * 1664525 + 1013904223) % LINES; // visits every line once
        memory[place_of(line)] = place_of(next);
        line = next;
    }
    double best = 1e9;
    for (int round = 0; round < 50; round++) {
        double begin = now();
        size_t place = place_of(0);
        for (size_t count = 0; count < LINES; count++)
            place = memory[place];
        double each = (now() - begin) / LINES;
        best = each < best ? each : best;
    }
    return best;
}
// ANCHOR_END: main

// Maps a page for each line, with or without huge pages.
static size_t *map(int advice)
{
    size_t len = LINES * page_size;
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    if (madvise(start, len, advice) != 0) // fails if the kernel was built without huge pages
        perror("madvise");
    return start;
}

static void show(const char *name, double time)
{
    fprintf(stderr, "%-31s %5.1f ns for each read\n", name, time);
}

int main(void)
{
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    size_t *small = map(MADV_NOHUGEPAGE), *huge = map(MADV_HUGEPAGE);
    printf("%d cache lines, read in random order: times are on stderr\n", LINES);
    show("side by side", nanoseconds_per_read(small, packed));
    show("one to a page", nanoseconds_per_read(small, spread));
    show("one to a page, with huge pages", nanoseconds_per_read(huge, spread));
}
