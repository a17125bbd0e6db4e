// A mutex that is not process-shared can block a waiter in another process, and never wakes it.

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
#include <threads.h>
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

static void *map(size_t len)
{
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static void lock_pthread(void *mutex)
{
    check(pthread_mutex_lock(mutex), "pthread_mutex_lock");
}

static void unlock_pthread(void *mutex)
{
    check(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
}

// The mutex of the C11 standard library.
static void lock_c(void *mutex)
{
    must(mtx_lock(mutex) == thrd_success, "mtx_lock");
}

static void unlock_c(void *mutex)
{
    must(mtx_unlock(mutex) == thrd_success, "mtx_unlock");
}

static pthread_mutex_t *new_pthread(int shared)
{
    pthread_mutex_t *mutex = map(sizeof *mutex);
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, shared), "setpshared");
    check(pthread_mutex_init(mutex, &attributes), "pthread_mutex_init");
    check(pthread_mutexattr_destroy(&attributes), "pthread_mutexattr_destroy");
    return mutex;
}

static bool is_running(pid_t child)
{
    siginfo_t info = {0};
    must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0, "waitid");
    return info.si_pid == 0;
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

// ANCHOR: main
// Holds a lock while a child waits for it, and then unlocks it. Returns whether the
// unlock wakes the child.
static bool wakes(void *mutex, void (*lock)(void *), void (*unlock)(void *))
{
    atomic_int *about_to_lock = map(sizeof *about_to_lock);
    pid_t parent = getpid();
    lock(mutex);
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        atomic_store(about_to_lock, 1);
        lock(mutex);
        unlock(mutex);
        _exit(0);
    }
    // Once the child has set the flag, it can sleep only in the lock call.
    while (!atomic_load(about_to_lock) || !is_sleeping(child)) {
        must(is_running(child), "child");
        sched_yield();
    }

    unlock(mutex);
    // If the unlock wakes the child, it does so before it returns.
    bool woken = !is_sleeping(child);
    // Locking again shows that the lock is free, even if the child still sleeps.
    lock(mutex);
    unlock(mutex);
    int status;
    if (woken) {
        must(waitpid(child, &status, 0) == child && status == 0, "child");
    } else {
        assert(is_sleeping(child));
        must(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child, "kill");
    }
    return woken;
}
// ANCHOR_END: main

static const char *describe(bool woken)
{
    return woken ? "the waiter was woken, and got the lock"
                 : "the lock is free, but the waiter keeps sleeping";
}

int main(void)
{
    mtx_t *mutex = map(sizeof *mutex);
    must(mtx_init(mutex, mtx_plain) == thrd_success, "mtx_init");
    bool private = wakes(new_pthread(PTHREAD_PROCESS_PRIVATE), lock_pthread, unlock_pthread);
    bool language = wakes(mutex, lock_c, unlock_c);
    bool shared = wakes(new_pthread(PTHREAD_PROCESS_SHARED), lock_pthread, unlock_pthread);
    printf("default pthread mutex:    %s\n", describe(private));
    printf("the language's own mutex: %s\n", describe(language));
    printf("process-shared mutex:     %s\n", describe(shared));
    assert(!private && !language && shared);
    return 0;
}
