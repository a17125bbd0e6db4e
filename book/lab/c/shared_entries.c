// fork copies the page-table entries of private memory, but not those of shared memory: the child faults them in.

#include <assert.h>
#include <fcntl.h>
#include <stdatomic.h>
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
static size_t page;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static char *map(int kind)
{
    char *start = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
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

// Returns how many pages are present in the page table: bit 63 of /proc/self/pagemap.
static long resident(const char *start)
{
    uint64_t entries[PAGES];
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    must(pagemap != -1, "/proc/self/pagemap");
    off_t offset = (off_t)((uintptr_t)start / page * sizeof entries[0]);
    must(pread(pagemap, entries, sizeof entries, offset) == sizeof entries, "pread");
    must(close(pagemap) == 0, "close");
    long present = 0;
    for (int i = 0; i < PAGES; i++)
        present += (long)(entries[i] >> 63);
    return present;
}

// Adds 1 to the first byte of each page, and returns the number of page faults.
static long add_to_each(char *start, char *warm)
{
    char *rounds[] = {warm, start};
    long taken = 0;
    // After a fork, code and stack of this function fault once as well. The first round absorbs those faults.
    for (int round = 0; round < 2; round++) {
        long before = faults();
        for (size_t i = 0; i < PAGES; i++) {
            // Write first: on aarch64, an atomic addition to a page that is not present is reported as a read fault.
            atomic_store_explicit((atomic_char *)(rounds[round] + i * page + 1), 1, memory_order_relaxed);
            atomic_fetch_add((atomic_char *)(rounds[round] + i * page), 1);
        }
        taken = faults() - before;
    }
    return taken;
}

static void row(const char *name, long private, long shared)
{
    printf("%-34s %7ld %7ld\n", name, private, shared);
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "PR_SET_THP_DISABLE");
    char *warm = map(MAP_PRIVATE);
    // ANCHOR: main
    long *seen = (long *)map(MAP_SHARED);
    char *private = map(MAP_PRIVATE), *shared = map(MAP_SHARED);
    add_to_each(private, warm);
    add_to_each(shared, warm);
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        seen[0] = resident(private);
        seen[1] = resident(shared);
        seen[2] = add_to_each(private, warm);
        seen[3] = add_to_each(shared, warm);
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    long again_private = add_to_each(private, warm);
    long again_shared = add_to_each(shared, warm);
    // ANCHOR_END: main
    printf("%34s private  shared\n", "");
    row("entries that the child starts with", seen[0], seen[1]);
    row("faults: child adds 1 to each page", seen[2], seen[3]);
    row("faults: parent adds 1 to each page", again_private, again_shared);
    row("value that the parent reads", private[0], shared[0]);
    assert(seen[0] == PAGES && seen[1] == 0 && seen[2] == PAGES && seen[3] == PAGES);
    assert(again_private == PAGES && again_shared == 0);
    assert(private[0] == 2 && shared[0] == 3);
    return 0;
}
