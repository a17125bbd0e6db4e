// After fork both processes share the same pages. A write copies the page, so the other process does not see it.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

int main(void)
{
    // ANCHOR: main
    volatile unsigned char *byte = mmap(NULL, 1, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(byte != MAP_FAILED, "mmap");
    *byte = 1;

    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        *byte = 2;
        _exit(*byte);
    }
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    assert(WIFEXITED(status));
    printf("the child wrote 2 and read %d\n", WEXITSTATUS(status));
    printf("the parent reads %d\n", *byte);
    // ANCHOR_END: main
    assert(WEXITSTATUS(status) == 2 && *byte == 1);
}
