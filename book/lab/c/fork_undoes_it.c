// After fork, the parent's writes to private pages fault again, unless they are marked MADV_DONTFORK or shared.

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 256 };

static size_t page;

// Returns the number of page faults of this thread so far.
static long faults(void)
{
    struct rusage usage;
    int error = getrusage(RUSAGE_THREAD, &usage);
    assert(error == 0);
    return usage.ru_minflt + usage.ru_majflt;
}

static volatile char *map(int kind)
{
    void *start = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    assert(start != MAP_FAILED);
    return start;
}

// Writes each page, and returns for how many of them a page fault occurred. A page counts only once, because unrelated
// faults can occur at the same time: when the kernel migrates the thread to another CPU, it writes to the C library's
// rseq area, and after a fork that write copies a page.
static __attribute__((noinline)) int faulting(volatile char *start)
{
    int count = 0;
    for (size_t number = 0; number < PAGES; number++) {
        long before = faults();
        start[number * page] = 1;
        count += faults() > before;
    }
    return count;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    assert(size > 0);
    page = (size_t)size;
    // Without huge pages, every page is faulted in separately.
    int error = prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    assert(error == 0);
    volatile char *warm = map(MAP_PRIVATE);
    // ANCHOR: main
    volatile char *private = map(MAP_PRIVATE);
    volatile char *dont_fork = map(MAP_PRIVATE);
    volatile char *shared = map(MAP_SHARED);
    error = madvise((void *)dont_fork, PAGES * page, MADV_DONTFORK);
    assert(error == 0);
    volatile char *mappings[4] = {warm, private, dont_fork, shared};
    for (int i = 0; i < 4; i++)
        faulting(mappings[i]);

    pid_t child = fork();
    assert(child != -1);
    if (child == 0) {
        error = prctl(PR_SET_PDEATHSIG, SIGKILL);
        assert(error == 0);
        for (;;)
            pause();
    }
    usleep(1000); // by now the kernel has written to the rseq area
    // Ignore the first count: it includes faults in the parent's own stack and data.
    int counts[4];
    for (int i = 0; i < 4; i++)
        counts[i] = faulting(mappings[i]);
    // ANCHOR_END: main
    error = kill(child, SIGKILL);
    assert(error == 0);
    pid_t reaped = waitpid(child, NULL, 0);
    assert(reaped == child);
    printf("private:                %3d pages fault\n", counts[1]);
    printf("private, MADV_DONTFORK: %3d pages fault\n", counts[2]);
    printf("shared:                 %3d pages fault\n", counts[3]);
    assert(counts[1] == PAGES && counts[2] == 0 && counts[3] == 0);
    return 0;
}
