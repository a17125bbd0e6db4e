// fork undoes populating and locking: the next writes fault again, except in memory marked MADV_DONTFORK.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
enum { PAGES = 4, WAYS = 3 };

static size_t page_size;

// Exits with an error message if a call has failed.
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

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

// Writes each page, and returns the number of page faults.
static long write_pages(volatile unsigned char *start)
{
    long before = faults();
    for (size_t page = 0; page < PAGES; page++)
        start[page * page_size] = 0;
    return faults() - before;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    // The first run also faults in code and stack, so its counts are ignored.
    unsigned char *scratch = populated();
    write_pages(scratch);

    // ANCHOR: main
    size_t len = PAGES * page_size;
    unsigned char *plain = populated();
    unsigned char *locked = populated();
    must(mlock(locked, len) == 0, "mlock");
    unsigned char *dont_fork = populated();
    must(madvise(dont_fork, len, MADV_DONTFORK) == 0, "madvise");
    unsigned char *ways[WAYS] = {plain, locked, dont_fork};
    long before[WAYS], after[WAYS], again[WAYS];
    for (int way = 0; way < WAYS; way++)
        before[way] = write_pages(ways[way]);

    // The child exits immediately. After that no page is shared any more, but the
    // parent's page-table entries stay write-protected.
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
