// fork copies the page table, not the pages. The first write to each page faults, and the kernel copies that page.

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
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

static unsigned char *map(size_t pages, int flags)
{
    void *start = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE,
                       flags | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

struct counts {
    int present, exclusive;
};

// Prints and returns how many pages are present (bit 63 of /proc/self/pagemap), and how many of them have a frame that
// no other entry maps (bit 56).
static struct counts show(const char *when, const unsigned char *start)
{
    uint64_t entries[PAGES];
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap >= 0, "/proc/self/pagemap");
    off_t first = (off_t)((uintptr_t)start / page_size * sizeof entries[0]);
    ssize_t length = pread(pagemap, entries, sizeof entries, first);
    must(length == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    struct counts counts = {0, 0};
    for (int page = 0; page < PAGES; page++) {
        counts.present += entries[page] >> 63 & 1;
        counts.exclusive += entries[page] >> 56 & 1;
    }
    printf("%-33s %3d present, %3d exclusive\n", when, counts.present, counts.exclusive);
    return counts;
}

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// Writes the first byte of each of the first `pages` pages, and returns the number of page faults.
static long write_pages(volatile unsigned char *start, size_t pages)
{
    long before = faults();
    for (size_t page = 0; page < pages; page++)
        start[page * page_size] = 1;
    return faults() - before;
}

static void expect(struct counts counts, int present, int exclusive)
{
    assert(counts.present == present && counts.exclusive == exclusive);
}

// Waits for a byte from the other process.
static void wait_for(int pipe)
{
    char byte;
    must(read(pipe, &byte, 1) == 1, "read");
}

// Flushes stdout, so that the lines appear in order, and sends a byte to the other process.
static void notify(int pipe)
{
    must(fflush(stdout) == 0, "fflush");
    must(write(pipe, "", 1) == 1, "write");
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    int to_child[2], to_parent[2];
    must(pipe(to_child) == 0 && pipe(to_parent) == 0, "pipe");
    // The first call also faults in code and stack. After the fork each process repeats this for its own copies.
    unsigned char *scratch = map(1, MAP_PRIVATE);
    write_pages(scratch, 1);

    // ANCHOR: main
    unsigned char *private = map(PAGES, MAP_PRIVATE);
    unsigned char *shared = map(PAGES, MAP_SHARED);
    write_pages(private, PAGES);
    write_pages(shared, PAGES);
    expect(show("parent, before the fork:", private), PAGES, PAGES);
    must(fflush(stdout) == 0, "fflush");

    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        must(close(to_child[1]) == 0 && close(to_parent[0]) == 0, "close");
        expect(show("child, after the fork:", private), PAGES, 0);
        expect(show("child, memory that is shared:", shared), 0, 0);
        notify(to_parent[1]);
        wait_for(to_child[0]);
        write_pages(scratch, 1);
        long taken = write_pages(private, 64);
        printf("child writes 64 pages:            %3ld faults\n", taken);
        assert(taken == 64);
        expect(show("child, after its writes:", private), PAGES, 64);
        notify(to_parent[1]);
        wait_for(to_child[0]);
        _exit(0);
    }
    must(close(to_child[0]) == 0 && close(to_parent[1]) == 0, "close");
    wait_for(to_parent[0]);
    expect(show("parent, after the fork:", private), PAGES, 0);
    notify(to_child[1]);
    wait_for(to_parent[0]);
    expect(show("parent, after the child's writes:", private), PAGES, 64);

    write_pages(scratch, 1);
    long taken = write_pages(private, PAGES);
    printf("parent writes 256 pages:          %3ld faults\n", taken);
    assert(taken == PAGES);
    expect(show("parent, after its writes:", private), PAGES, PAGES);
    taken = write_pages(private, PAGES);
    assert(taken == 0);
    // ANCHOR_END: main
    notify(to_child[1]);
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
