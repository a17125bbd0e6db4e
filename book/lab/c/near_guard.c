// Access to a guard page raises SIGSEGV, a system call fails with EFAULT, and the guard splits one VMA into three.

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROOM = 5 };
static size_t page;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Returns how many lines of /proc/self/maps overlap the `pages` pages from `start`.
static int lines(const char *start, size_t pages)
{
    uintptr_t from = (uintptr_t)start, to = from + pages * page;
    char line[8192];
    int overlapping = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps != NULL, "/proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        unsigned long first, end;
        if (sscanf(line, "%lx-%lx", &first, &end) == 2)
            overlapping += first < to && from < end;
    }
    must(fclose(maps) == 0, "/proc/self/maps");
    return overlapping;
}

// Exits with the signal's si_code. _exit is async-signal-safe.
static void exit_with_code(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    _exit(info->si_code);
}

// Reads the byte in a child, and returns the si_code of the SIGSEGV.
static const char *code_of_reading(volatile char *byte)
{
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        struct sigaction action = {.sa_sigaction = exit_with_code, .sa_flags = SA_SIGINFO};
        must(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
        (void)*byte;
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && WIFEXITED(status), "child");
    switch (WEXITSTATUS(status)) {
    case SEGV_MAPERR: return "SEGV_MAPERR";
    case SEGV_ACCERR: return "SEGV_ACCERR";
    default: return "no si_code of SIGSEGV";
    }
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    // ANCHOR: main
    char *start = mmap(NULL, ROOM * page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    int before = lines(start, ROOM);
    char *guard = start + page;
    must(mprotect(guard, page, PROT_NONE) == 0, "mprotect");
    int after = lines(start, ROOM);
    char *hole = start + 3 * page;
    must(munmap(hole, page) == 0, "munmap");

    const char *touched_guard = code_of_reading(guard);
    const char *touched_hole = code_of_reading(hole);
    int ends[2];
    must(pipe(ends) == 0, "pipe");
    ssize_t written = write(ends[1], guard, 1);
    int error = errno;
    // ANCHOR_END: main
    printf("lines in maps: %d, with a guard page: %d\n", before, after);
    printf("read in the guard page: SIGSEGV, %s\n", touched_guard);
    printf("read in a hole:         SIGSEGV, %s\n", touched_hole);
    printf("write(2) from the guard page: Err(%s)\n",
           written == -1 && error == EFAULT ? "EFAULT" : "something else");
    assert(before == 1 && after == 3 && written == -1 && error == EFAULT);
    assert(strcmp(touched_guard, "SEGV_ACCERR") == 0);
    assert(strcmp(touched_hole, "SEGV_MAPERR") == 0);
    return 0;
}
