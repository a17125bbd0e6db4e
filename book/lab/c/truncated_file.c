// Shortening a file takes its pages out of every mapping, private copies included.

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}
// Creates a file of two pages that has no name.
static int temporary_file(void)
{
    char path[] = "/tmp/truncated_file.XXXXXX";
    int file = mkstemp(path);
    must(file != -1 && unlink(path) == 0, "a temporary file");
    must(ftruncate(file, (off_t)(2 * page_size)) == 0, "ftruncate");
    return file;
}

static volatile char *map(int file, int flags)
{
    void *start = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, flags, file, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Reads a byte in a child process. Returns the byte, or the signal that ended the child.
static const char *read_byte(volatile char *byte)
{
    static char values[2][8]; // for the two results of a line
    static int next;
    char *value = values[next++ % 2];
    fflush(stdout);
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        struct rlimit none = {0, 0};
        must(setrlimit(RLIMIT_CORE, &none) == 0, "setrlimit");
        _exit(*byte); // if the file does not reach there, the kernel ends this process
    }
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)
        return strcpy(value, "SIGBUS");
    must(WIFEXITED(status), "the child");
    snprintf(value, sizeof *values, "%d", WEXITSTATUS(status));
    return value;
}

static void show(const char *name, volatile char *shared, volatile char *private,
                 const char *expected)
{
    const char *of_shared = read_byte(shared), *of_private = read_byte(private);
    printf("%-32s %-7s %s\n", name, of_shared, of_private);
    assert(strcmp(of_shared, expected) == 0 && strcmp(of_private, expected) == 0);
}

int main(void)
{
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    printf("the second page of the mapping:  shared  private\n");
    // ANCHOR: main
    int file = temporary_file(); // of two pages
    volatile char *shared = map(file, MAP_SHARED);
    volatile char *private = map(file, MAP_PRIVATE);
    for (size_t page = 0; page < 2; page++) {
        shared[page * page_size] = 7;
        private[page * page_size] = 7;
    }
    show("both written", shared + page_size, private + page_size, "7");
    must(ftruncate(file, (off_t)page_size) == 0, "ftruncate");
    show("file shortened", shared + page_size, private + page_size, "SIGBUS");
    must(ftruncate(file, (off_t)(2 * page_size)) == 0, "ftruncate");
    show("file extended again", shared + page_size, private + page_size, "0");
    // ANCHOR_END: main
}
