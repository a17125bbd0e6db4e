// The same madvise advice has different effects on private and on shared memory.

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static void reads(volatile char *start, char *text, size_t size)
{
    snprintf(text, size, "%d", *start);
}

// Stores the value that a child reads from the page, or the signal that kills it.
static void child_reads(volatile char *start, char *text, size_t size)
{
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0)
        _exit(*start);
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (WIFEXITED(status)) {
        snprintf(text, size, "%d", WEXITSTATUS(status));
    } else {
        must(WTERMSIG(status) == SIGSEGV, "child");
        snprintf(text, size, "SIGSEGV");
    }
}

struct row {
    const char *name;
    int advice;
    void (*read)(volatile char *, char *, size_t);
    const char *private, *shared;
};

// ANCHOR: main
// Calls madvise on a page that holds 7. Stores its result, and the value that is read
// afterwards.
static void advise(int kind, const struct row *row, char *text, size_t size)
{
    char *start = mmap(NULL, page, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    *(volatile char *)start = 7;
    const char *outcome = "ok";
    if (madvise(start, page, row->advice) == -1) {
        must(errno == EINVAL, "madvise");
        outcome = "EINVAL";
    }
    int len = snprintf(text, size, "%s, ", outcome);
    row->read(start, text + len, size - (size_t)len);
}
// ANCHOR_END: main

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    must(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0, "RLIMIT_CORE");
    static const struct row rows[] = {
        {"MADV_DONTNEED, then read:", MADV_DONTNEED, reads, "ok, 0", "ok, 7"},
        {"MADV_REMOVE, then read:", MADV_REMOVE, reads, "EINVAL, 7", "ok, 0"},
        {"MADV_WIPEONFORK, in child:", MADV_WIPEONFORK, child_reads, "ok, 0", "EINVAL, 7"},
        {"MADV_DONTFORK, in child:", MADV_DONTFORK, child_reads, "ok, SIGSEGV", "ok, SIGSEGV"},
    };
    printf("%-28s%-13sshared\n", "", "private");
    for (int i = 0; i < 4; i++) {
        char private[32], shared[32];
        advise(MAP_PRIVATE, &rows[i], private, sizeof private);
        advise(MAP_SHARED, &rows[i], shared, sizeof shared);
        printf("%-28s%-13s%s\n", rows[i].name, private, shared);
        assert(strcmp(private, rows[i].private) == 0 && strcmp(shared, rows[i].shared) == 0);
    }
    return 0;
}
