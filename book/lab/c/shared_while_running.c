// A process reads what another writes to shared memory while both run. Release and acquire order the accesses.

#include <assert.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
    int value;
    atomic_int turn;
};

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static bool is_running(pid_t child)
{
    siginfo_t info = {0};
    must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0, "waitid");
    return info.si_pid == 0;
}

int main(void)
{
    struct shared *both = mmap(NULL, sizeof *both, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(both != MAP_FAILED, "mmap");
    pid_t parent = getpid();
    // ANCHOR: main
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        both->value = 42;
        atomic_store_explicit(&both->turn, 1, memory_order_release);
        while (atomic_load_explicit(&both->turn, memory_order_acquire) != 2)
            sched_yield();
        _exit(both->value);
    }
    while (atomic_load_explicit(&both->turn, memory_order_acquire) != 1) {
        must(is_running(child), "child");
        sched_yield();
    }
    int parent_read = both->value;
    bool running = is_running(child);
    both->value = 43;
    atomic_store_explicit(&both->turn, 2, memory_order_release);
    int status;
    must(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
    // ANCHOR_END: main
    printf("the parent read %d while the child ran\n", parent_read);
    printf("the child read %d and ended\n", WEXITSTATUS(status));
    assert(parent_read == 42 && running && WEXITSTATUS(status) == 43);
    return 0;
}
