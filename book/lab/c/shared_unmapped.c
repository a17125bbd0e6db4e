// A process unmaps only its own mapping, and its end does the same: the others keep theirs.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page;

static void must(int holds, const char *call)
{
    if (!holds) {
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

// Writes a number there in a child, which then does `before_its_end`; gives what the parent reads after that end.
static int read_after_child(volatile char *start, char number, void (*before_its_end)(volatile char *))
{
    // ANCHOR: main
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        *start = number;
        before_its_end(start);
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
    int anew = *map();
    printf("one child wrote 1, unmapped its own, ended: the parent reads %d\n", after_munmap);
    printf("another wrote 2 and only ended:             the parent reads %d\n", after_end);
    printf("the parent unmapped, and mapped anew:       the parent reads %d\n", anew);
    assert(after_munmap == 1 && after_end == 2 && anew == 0);
    return 0;
}
