// Checks book/src/figures/robust-mutex.svg: each arrow between two states of a robust mutex.
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t *mutex;

static void initialize(void) {
    pthread_mutexattr_t attributes;
    assert(pthread_mutexattr_init(&attributes) == 0);
    assert(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
    assert(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    assert(pthread_mutex_init(mutex, &attributes) == 0);
}

// Locks the mutex in a child that ends without unlocking it.
static void lock_and_die(int expected) {
    pid_t child = fork();
    assert(child >= 0);
    if (child == 0) _exit(pthread_mutex_lock(mutex) != expected);
    int status;
    assert(waitpid(child, &status, 0) == child && status == 0);
}

int main(void) {
    mutex = mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert(mutex != MAP_FAILED);
    initialize();

    // unlocked, locked
    assert(pthread_mutex_lock(mutex) == 0);
    assert(pthread_mutex_unlock(mutex) == 0);

    // owner died; locked, inconsistent; owner died again
    lock_and_die(0);
    lock_and_die(EOWNERDEAD);

    // repaired
    assert(pthread_mutex_lock(mutex) == EOWNERDEAD);
    assert(pthread_mutex_consistent(mutex) == 0);
    assert(pthread_mutex_unlock(mutex) == 0);
    assert(pthread_mutex_lock(mutex) == 0);
    assert(pthread_mutex_unlock(mutex) == 0);

    // not recoverable, every time
    lock_and_die(0);
    assert(pthread_mutex_lock(mutex) == EOWNERDEAD);
    assert(pthread_mutex_unlock(mutex) == 0);
    assert(pthread_mutex_lock(mutex) == ENOTRECOVERABLE);
    assert(pthread_mutex_lock(mutex) == ENOTRECOVERABLE);

    // destroy, init
    assert(pthread_mutex_destroy(mutex) == 0);
    initialize();
    assert(pthread_mutex_lock(mutex) == 0);
}
