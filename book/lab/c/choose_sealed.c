// A seal keeps the other side from shrinking a memfd under a mapping, where a touch would end in SIGBUS.
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
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

static int end_of(pid_t child)
{
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    return status;
}

// ANCHOR: main
// Maps a memfd of one page with those seals, and lets another process cut it to
// nothing. Returns what ftruncate told that process, and how a third process ended
// that touched the page afterwards.
static int cut(int seals, int *touched)
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
    int told = end_of(other);
    must(WIFEXITED(told), "child");

    pid_t touch = fork();
    must(touch != -1, "fork");
    if (touch == 0) {
        *start = 1;
        _exit(0);
    }
    *touched = end_of(touch);
    must(close(memfd) == 0, "close");
    return WEXITSTATUS(told);
}
// ANCHOR_END: main

static const char *say(int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)
        return "is SIGBUS";
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return "is well";
}

static const char *result(int error)
{
    assert(error == 0 || error == EPERM);
    return error == 0 ? "Ok(())" : "Err(EPERM)";
}

int main(void)
{
    must(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0, "RLIMIT_CORE");
    int touched;
    int told = cut(0, &touched);
    printf("no seal:       ftruncate gives %s, a touch then %s\n", result(told), say(touched));
    assert(told == 0 && WIFSIGNALED(touched));
    told = cut(F_SEAL_SHRINK, &touched);
    printf("F_SEAL_SHRINK: ftruncate gives %s, a touch then %s\n", result(told), say(touched));
    assert(told == EPERM && WIFEXITED(touched));
    return 0;
}
