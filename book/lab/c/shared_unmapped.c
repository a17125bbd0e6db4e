// A process unmaps only its own mapping, with munmap or by exiting. Other processes keep theirs.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

static volatile char *map(void)
{
    char *start = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static void unmap(volatile char *start)
{
    must(munmap((void *)start, page) == 0, "munmap");
}

static void nothing(volatile char *start)
{
    (void)start;
}

// Forks a child that writes `number` to the page and calls `before_exit`. Returns what the parent reads afterwards.
static int read_after_child(volatile char *start, char number, void (*before_exit)(volatile char *))
{
    // ANCHOR: main
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        *start = number;
        before_exit(start);
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    return *start;
    // ANCHOR_END: main
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    volatile char *start = map();
    int after_munmap = read_after_child(start, 1, unmap);
    int after_end = read_after_child(start, 2, nothing);
    unmap(start);
    int remapped = *map();
    printf("a child wrote 1, unmapped and exited: the parent reads %d\n", after_munmap);
    printf("a child wrote 2 and exited:           the parent reads %d\n", after_end);
    printf("the parent unmapped and mapped again: the parent reads %d\n", remapped);
    assert(after_munmap == 1 && after_end == 2 && remapped == 0);
    return 0;
}
