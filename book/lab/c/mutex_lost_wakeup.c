// A mutex that was not told that it is shared lets another process wait, and never wakes it.
#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <threads.h>
#include <unistd.h>

static void must(int holds, const char *call)
{
    if (!holds) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

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

// The mutex of C11's own library.
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

static int runs(pid_t child)
{
    siginfo_t info = {0};
    must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0, "waitid");
    return info.si_pid == 0;
}

// State `S` in /proc/PID/stat: whoever wakes a process ends that state before the waking call returns.
static int sleeps(pid_t child)
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
// Lets a child wait for a lock that this process holds, and unlocks it. Returns
// whether that wakes the child.
static int wakes(void *mutex, void (*lock)(void *), void (*unlock)(void *))
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
    // From then on there is only one thing to sleep for.
    while (!atomic_load(about_to_lock) || !sleeps(child)) {
        must(runs(child), "child");
        sched_yield();
    }

    unlock(mutex);
    // A wake-up ends that sleep before the unlocking call returns.
    int woken = !sleeps(child);
    // The lock is free, whether the child knows it or not.
    lock(mutex);
    unlock(mutex);
    int status;
    if (woken) {
        must(waitpid(child, &status, 0) == child && status == 0, "child");
    } else {
        assert(sleeps(child));
        must(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child, "kill");
    }
    return woken;
}
// ANCHOR_END: main

static const char *say(int woken)
{
    return woken ? "the waiter was woken, and got the lock"
                 : "the lock is free, and the waiter sleeps on";
}

int main(void)
{
    mtx_t *mutex = map(sizeof *mutex);
    must(mtx_init(mutex, mtx_plain) == thrd_success, "mtx_init");
    int private = wakes(new_pthread(PTHREAD_PROCESS_PRIVATE), lock_pthread, unlock_pthread);
    int language = wakes(mutex, lock_c, unlock_c);
    int shared = wakes(new_pthread(PTHREAD_PROCESS_SHARED), lock_pthread, unlock_pthread);
    printf("default pthread mutex:    %s\n", say(private));
    printf("the language's own mutex: %s\n", say(language));
    printf("process-shared mutex:     %s\n", say(shared));
    assert(!private && !language && shared);
    return 0;
}
