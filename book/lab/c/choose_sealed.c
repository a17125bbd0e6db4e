// F_SEAL_SHRINK keeps other processes from truncating a mapped memfd. Without it, an access can end in SIGBUS.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
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

static int wait_status(pid_t child)
{
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    return status;
}

// ANCHOR: main
// Maps a memfd of one page with these seals, and lets a child truncate it to length 0.
// Returns the error of ftruncate in the child, or 0, and the wait status of a second
// child that writes to the page afterwards.
static int cut(int seals, int *touch_status)
{
    long page = sysconf(_SC_PAGESIZE);
    int memfd = memfd_create("lab", MFD_ALLOW_SEALING);
    must(memfd != -1 && ftruncate(memfd, page) == 0, "memfd_create");
    must(fcntl(memfd, F_ADD_SEALS, seals) == 0, "F_ADD_SEALS");
    volatile char *start = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    must(start != MAP_FAILED, "mmap");

    pid_t other = fork();
    must(other != -1, "fork");
    if (other == 0)
        _exit(ftruncate(memfd, 0) == 0 ? 0 : errno);
    int truncated = wait_status(other);
    must(WIFEXITED(truncated), "child");

    pid_t touch = fork();
    must(touch != -1, "fork");
    if (touch == 0) {
        *start = 1;
        _exit(0);
    }
    *touch_status = wait_status(touch);
    must(close(memfd) == 0, "close");
    return WEXITSTATUS(truncated);
}
// ANCHOR_END: main

static const char *describe(int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)
        return "SIGBUS";
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return "ok";
}

static const char *result(int error)
{
    assert(error == 0 || error == EPERM);
    return error == 0 ? "Ok(())" : "Err(EPERM)";
}

int main(void)
{
    must(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0, "RLIMIT_CORE");
    int touch_status;
    int error = cut(0, &touch_status);
    printf("no seal:       ftruncate: %s, access: %s\n", result(error), describe(touch_status));
    assert(error == 0 && WIFSIGNALED(touch_status));
    error = cut(F_SEAL_SHRINK, &touch_status);
    printf("F_SEAL_SHRINK: ftruncate: %s, access: %s\n", result(error), describe(touch_status));
    assert(error == EPERM && WIFEXITED(touch_status));
    return 0;
}
