// A condition variable must be process-shared to wake a waiter in another process. A killed waiter costs a signal.

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

// The pthread functions return an error number and do not set errno.
static void check(int error, const char *call)
{
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", call, strerror(error));
        exit(EXIT_FAILURE);
    }
}

// Returns whether the child sleeps in the kernel: state `S` in /proc/PID/stat. A call that wakes it changes the state
// before it returns.
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
    return name_ends[1] == ' ' && name_ends[2] == 'S';
}

struct shared {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    atomic_int about_to_wait;
    int ready;
};

// Returns zeroed shared memory with an initialised mutex and condition variable.
static struct shared *new_shared(int pshared)
{
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED, "mmap");
    pthread_mutexattr_t for_mutex;
    check(pthread_mutexattr_init(&for_mutex), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&for_mutex, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_mutex_init(&shared->mutex, &for_mutex), "pthread_mutex_init");
    pthread_condattr_t for_condition;
    check(pthread_condattr_init(&for_condition), "pthread_condattr_init");
    check(pthread_condattr_setpshared(&for_condition, pshared), "setpshared");
    check(pthread_cond_init(&shared->condition, &for_condition), "pthread_cond_init");
    return shared;
}

// ANCHOR: main
// Starts a child that waits until `ready` is set.
static pid_t start_waiter(struct shared *shared)
{
    pid_t parent = getpid();
    shared->ready = 0;
    atomic_store(&shared->about_to_wait, 0);
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        check(pthread_mutex_lock(&shared->mutex), "lock");
        atomic_store(&shared->about_to_wait, 1);
        while (!shared->ready)
            check(pthread_cond_wait(&shared->condition, &shared->mutex), "wait");
        check(pthread_mutex_unlock(&shared->mutex), "unlock");
        _exit(0);
    }
    while (!atomic_load(&shared->about_to_wait) || !is_sleeping(child))
        sched_yield();
    return child;
}

// Returns whether a signal wakes a child.
static bool wakes(struct shared *shared)
{
    pid_t child = start_waiter(shared);
    check(pthread_mutex_lock(&shared->mutex), "lock");
    shared->ready = 1;
    check(pthread_mutex_unlock(&shared->mutex), "unlock");
    check(pthread_cond_signal(&shared->condition), "signal");
    // If the signal wakes the child, it does so before it returns.
    bool woken = !is_sleeping(child);
    if (!woken)
        must(kill(child, SIGKILL) == 0, "kill");
    int status;
    must(waitpid(child, &status, 0) == child && (!woken || status == 0), "child");
    return woken;
}
// ANCHOR_END: main

static const char *describe(bool woken)
{
    return woken ? "was woken" : "keeps sleeping";
}

int main(void)
{
    bool by_default = wakes(new_shared(PTHREAD_PROCESS_PRIVATE));
    bool process_shared = wakes(new_shared(PTHREAD_PROCESS_SHARED));

    struct shared *shared = new_shared(PTHREAD_PROCESS_SHARED);
    pid_t killed = start_waiter(shared);
    must(kill(killed, SIGKILL) == 0 && waitpid(killed, NULL, 0) == killed, "kill");
    bool first = wakes(shared), second = wakes(shared);

    printf("default condition variable:        the child %s\n", describe(by_default));
    printf("process-shared condition variable: the child %s\n", describe(process_shared));
    printf("after a waiter was killed:         the child %s, the next one %s\n", describe(first), describe(second));
    assert(!by_default && process_shared && first && !second);
    return 0;
}
