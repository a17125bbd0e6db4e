// A fork undoes what populating and locking have done, except for memory that it leaves out.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Few enough to be locked by everybody: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 4, WAYS = 3 };

static size_t page_size;

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static unsigned char *populated(void)
{
    void *start = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// The faults that it takes to write each page.
static long write_pages(volatile unsigned char *start)
{
    long before = faults();
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 0;
    return faults() - before;
}

int main(void)
{
    long known = sysconf(_SC_PAGESIZE);
    must(known > 0, "sysconf");
    page_size = (size_t)known;
    // No huge pages, so that each page faults for itself.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    // The first time, code and stack are touched too: that counts for nothing.
    unsigned char *scratch = populated();
    write_pages(scratch);

    // ANCHOR: main
    size_t len = PAGES * page_size;
    unsigned char *plain = populated();
    unsigned char *locked = populated();
    must(mlock(locked, len) == 0, "mlock");
    unsigned char *left_out = populated();
    must(madvise(left_out, len, MADV_DONTFORK) == 0, "madvise");
    unsigned char *ways[WAYS] = {plain, locked, left_out};
    long before[WAYS], after[WAYS], again[WAYS];
    for (int way = 0; way < WAYS; way++)
        before[way] = write_pages(ways[way]);

    // This child ends at once, so that every page is the parent's alone again.
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0)
        _exit(0);
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    write_pages(scratch);
    for (int way = 0; way < WAYS; way++)
        after[way] = write_pages(ways[way]);
    for (int way = 0; way < WAYS; way++)
        again[way] = write_pages(ways[way]);
    // ANCHOR_END: main
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    static const char *const names[WAYS] = {"MAP_POPULATE", "and mlock", "and MADV_DONTFORK"};
    printf("faults at the writes:   before a fork  after it  once more\n");
    for (int way = 0; way < WAYS; way++) {
        printf("%-23s %13ld %9ld %10ld\n", names[way], before[way], after[way], again[way]);
        assert(before[way] == 0 && again[way] == 0);
        assert(after[way] == (way == 2 ? 0 : PAGES));
    }
}
