// A private mapping grows by mremap, and so does a shared one; but behind the shared one's new page there is nothing.
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int holds, const char *call)
{
    if (!holds) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// ANCHOR: main
// Grows one page to two. Returns what the old page holds then, and how a child ended
// that reads the new page, and exits with what it read.
static int grow(int kind, int *status)
{
    size_t one = (size_t)sysconf(_SC_PAGESIZE);
    char *start = mmap(NULL, one, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    *start = 7;
    volatile char *grown = mremap(start, one, 2 * one, MREMAP_MAYMOVE);
    must(grown != MAP_FAILED, "mremap");
    int old = *grown;
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0)
        _exit(grown[one]);
    must(waitpid(child, status, 0) == child, "waitpid");
    return old;
}
// ANCHOR_END: main

int main(void)
{
    must(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0, "RLIMIT_CORE");
    int status;
    int old = grow(MAP_PRIVATE, &status);
    must(WIFEXITED(status), "child");
    printf("private: the old page reads %d, the new one %d\n", old, WEXITSTATUS(status));
    assert(old == 7 && WEXITSTATUS(status) == 0);
    old = grow(MAP_SHARED, &status);
    must(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "child");
    printf("shared:  the old page reads %d, the new one ends in SIGBUS\n", old);
    assert(old == 7);
    return 0;
}
