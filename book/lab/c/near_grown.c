// mremap grows private and shared anonymous mappings, but the shared one has no memory behind its new page.

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// ANCHOR: main
// Grows a mapping from one page to two. Returns the value in the old page, and stores the
// wait status of a child that reads the new page and exits with its value.
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
