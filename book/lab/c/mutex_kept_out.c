// An addition between another process's load and store is lost, unless one mutex in shared memory prevents it.

#include <assert.h>
#include <errno.h>
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

struct shared {
    int counter;
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

// The pthread functions return an error number and do not set errno.
static void check(int error, const char *call)
{
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", call, strerror(error));
        exit(EXIT_FAILURE);
    }
}

static void *map(size_t len, int kind)
{
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

static pthread_mutex_t *new_lock(int kind)
{
    pthread_mutex_t *mutex = map(sizeof *mutex, kind);
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_mutex_init(mutex, &attributes), "pthread_mutex_init");
    check(pthread_mutexattr_destroy(&attributes), "pthread_mutexattr_destroy");
    return mutex;
}

// Adds 1 if the lock is free or there is no lock. Returns whether it did.
static bool try_add(int *counter, pthread_mutex_t *lock)
{
    if (lock) {
        int error = pthread_mutex_trylock(lock);
        if (error == EBUSY)
            return false;
        check(error, "pthread_mutex_trylock");
    }
    ++*counter;
    if (lock)
        check(pthread_mutex_unlock(lock), "pthread_mutex_unlock");
    return true;
}

// ANCHOR: main
// Adds 1, and lets a child try to add 1 between the load and the store. If the lock kept
// the child out, adds the child's 1 afterwards. Returns the sum.
static int two_additions(pthread_mutex_t *lock)
{
    struct shared *shared = map(sizeof *shared, MAP_SHARED);
    pid_t parent = getpid();
    // Fork before locking. Otherwise the child would inherit a locked copy of a lock in
    // private memory.
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        while (atomic_load(&shared->turn) == 0)
            sched_yield();
        _exit(try_add(&shared->counter, lock));
    }

    if (lock)
        check(pthread_mutex_lock(lock), "pthread_mutex_lock");
    int loaded = shared->counter;
    atomic_store(&shared->turn, 1);
    int status;
    must(waitpid(child, &status, 0) == child && WIFEXITED(status), "child");
    shared->counter = loaded + 1;
    if (lock)
        check(pthread_mutex_unlock(lock), "pthread_mutex_unlock");
    must(WEXITSTATUS(status) == 1 ||
             (WEXITSTATUS(status) == 0 && try_add(&shared->counter, lock)), "add");
    return shared->counter;
}
// ANCHOR_END: main

int main(void)
{
    int none = two_additions(NULL);
    int private = two_additions(new_lock(MAP_PRIVATE));
    int shared = two_additions(new_lock(MAP_SHARED));
    printf("no lock:                1 + 1 = %d\n", none);
    printf("lock in private memory: 1 + 1 = %d\n", private);
    printf("lock in shared memory:  1 + 1 = %d\n", shared);
    assert(none == 1 && private == 1 && shared == 2);
    return 0;
}
