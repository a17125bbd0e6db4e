// What the kernel can reclaim immediately: clean pages of a file, but no dirty, locked or (without swap) anonymous ones.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 4 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}
static char *map(int file, int flags)
{
    void *start = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, flags, file, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Counts the pages that are in memory.
static int in_core(char *start)
{
    unsigned char found[PAGES];
    must(mincore(start, PAGES * page_size, found) == 0, "mincore");
    int count = 0;
    for (int page = 0; page < PAGES; page++)
        count += found[page] & 1;
    return count;
}

// Returns a temporary file whose pages are not the only copy of its data, as they are in a tmpfs, or -1. It has `PAGES`
// pages.
static int file_on_disk(void)
{
    static const char *const folders[] = {"/var/tmp", "/tmp", "."};
    for (size_t number = 0; number < sizeof folders / sizeof *folders; number++) {
        char path[32];
        snprintf(path, sizeof path, "%s/page_out.XXXXXX", folders[number]);
        int file = mkstemp(path);
        if (file == -1)
            continue;
        char *zeros = calloc(PAGES, page_size);
        must(unlink(path) == 0 && zeros != NULL, "a temporary file");
        must(write(file, zeros, PAGES * page_size) == (ssize_t)(PAGES * page_size), "write");
        free(zeros);
        must(fsync(file) == 0, "fsync");
        // Drops clean pages that nobody maps.
        must(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
        if (in_core(map(file, MAP_SHARED)) == 0)
            return file;
        must(close(file) == 0, "close");
    }
    return -1;
}

// Keeps this thread on one processor. New pages wait in a queue of their processor, from which MADV_PAGEOUT takes them
// only if the caller runs there.
static void stay_on_this_processor(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    must(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

// ANCHOR: main
// Writes the pages, which makes them dirty.
static void write_pages(volatile char *start)
{
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 1;
}

// Asks the kernel to reclaim the pages now. Returns 0 or the error, and how many pages
// are still in memory.
struct reclaimed {
    int error, left;
};

static struct reclaimed reclaim(char *start)
{
    int error = madvise(start, PAGES * page_size, MADV_PAGEOUT) == 0 ? 0 : errno;
    return (struct reclaimed){error, in_core(start)};
}
// ANCHOR_END: main

static long major_faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_majflt;
}

static void show(const char *name, struct reclaimed result, int error, int left)
{
    const char *shown = result.error == 0        ? "Ok(())"
                        : result.error == EINVAL ? "Err(EINVAL)"
                                                 : "another error";
    printf("%-20s %-12s %d of %d in memory\n", name, shown, result.left, PAGES);
    assert(result.error == error && result.left == left);
}

int main(void)
{
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    stay_on_this_processor();
    int first = file_on_disk(), second = file_on_disk();
    if (first == -1 || second == -1) {
        printf("found no folder for temporary files that is on a disk\n");
        return 77;
    }
    char *dirty = map(first, MAP_SHARED), *clean = map(second, MAP_SHARED);
    // ANCHOR: rows
    write_pages(dirty);
    show("a file, dirty", reclaim(dirty), 0, PAGES);

    write_pages(clean);
    must(fsync(second) == 0, "fsync");
    show("a file, clean", reclaim(clean), 0, 0);
    long before = major_faults();
    (void)*(volatile char *)clean;
    bool read_back = major_faults() > before;
    printf("read again           major fault: %s\n", read_back ? "true" : "false");

    must(mlock(clean, PAGES * page_size) == 0, "mlock");
    show("a file, locked", reclaim(clean), EINVAL, PAGES);

    char *anonymous = map(-1, MAP_PRIVATE | MAP_ANONYMOUS);
    write_pages(anonymous);
    struct reclaimed of_anonymous = reclaim(anonymous);
    // ANCHOR_END: rows
    assert(read_back);
    struct sysinfo info;
    must(sysinfo(&info) == 0, "sysinfo");
    if (info.totalswap > 0) {
        fprintf(stderr, "This machine has swap, so anonymous pages can go. Printing the line of a machine without.\n");
        of_anonymous = (struct reclaimed){0, PAGES};
    }
    show("anonymous, no swap", of_anonymous, 0, PAGES);
}
