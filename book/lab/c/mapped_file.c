// A shared file mapping and read(2) use the same pages; a private mapping has its own copies.

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int file;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static volatile unsigned char *map(size_t len, int flags)
{
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, file, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static int first_byte(void)
{
    unsigned char byte;
    must(pread(file, &byte, 1, 0) == 1, "pread");
    return byte;
}

int main(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char path[] = "/tmp/mapped_file.XXXXXX";
    file = mkstemp(path);
    must(file != -1 && unlink(path) == 0 && write(file, "\1", 1) == 1, "a temporary file");
    // ANCHOR: main
    volatile unsigned char *private = map(page, MAP_PRIVATE);
    private[0] = 9;
    int after_private = first_byte();
    volatile unsigned char *shared = map(2 * page, MAP_SHARED);
    shared[0] = 2;
    int after_shared = first_byte(); // without msync
    volatile unsigned char *beyond = shared + page; // the file has one byte
    // ANCHOR_END: main
    printf("written through a private mapping, read by read(2): %d\n", after_private);
    printf("written through a shared mapping, read by read(2): %d\n", after_shared);
    assert(after_private == 1 && after_shared == 2);
    fflush(stdout);
    int status;
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        struct rlimit none = {0, 0};
        must(setrlimit(RLIMIT_CORE, &none) == 0, "setrlimit");
        _exit(*beyond); // the kernel ends this process, because the file does not reach there
    }
    must(waitpid(child, &status, 0) == child, "waitpid");
    assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    printf("touched beyond the end of the file: SIGBUS\n");
    return 0;
}
