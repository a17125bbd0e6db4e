// futex(2): a wait compares the word first, and a private wake-up finds no waiter of another process.

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

// Calls futex(2), without a time limit.
static long futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    return syscall(SYS_futex, word, operation, value, NULL);
}

// Returns whether the child sleeps in the kernel: state `S` in /proc/PID/stat.
static bool is_sleeping(pid_t child)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)child);
    FILE *stat = fopen(path, "r");
    must(stat != NULL, path);
    must(fgets(line, sizeof line, stat) != NULL, path);
    must(fclose(stat) == 0, path);
    const char *name_ends = strrchr(line, ')');
    must(name_ends != NULL, path);
    must(name_ends[2] != 'Z', "the child ended early");
    return name_ends[1] == ' ' && name_ends[2] == 'S';
}

int main(void)
{
    pid_t parent = getpid();
    _Atomic uint32_t *word = mmap(NULL, 2 * sizeof *word, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(word != MAP_FAILED, "mmap");
    _Atomic uint32_t *about_to_wait = word + 1;
    // ANCHOR: main
    long changed = futex(word, FUTEX_WAIT, 1); // expects 1; the word contains 0
    int error = errno;

    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        atomic_store(about_to_wait, 1);
        _exit(futex(word, FUTEX_WAIT, 0) == 0 ? 0 : 1);
    }
    while (!atomic_load(about_to_wait) || !is_sleeping(child))
        sched_yield();
    long private = futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    long shared = futex(word, FUTEX_WAKE, 1);
    // ANCHOR_END: main
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    assert(changed == -1 && error == EAGAIN && private == 0 && shared == 1);
    printf("wait for another value: EAGAIN\n");
    printf("private wake-up: %ld woken\n", private);
    printf("shared wake-up:  %ld woken\n", shared);
    return 0;
}
