// A mutex stays locked when its owner is killed. Only a robust mutex reports the owner's death.

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

// Returns a mutex whose owner, a child, was killed while it held the lock.
static pthread_mutex_t *orphan(int robust)
{
    pthread_mutex_t *mutex = mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(mutex != MAP_FAILED, "mmap");
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_mutexattr_setrobust(&attributes, robust), "setrobust");
    check(pthread_mutex_init(mutex, &attributes), "pthread_mutex_init");
    check(pthread_mutexattr_destroy(&attributes), "pthread_mutexattr_destroy");
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        check(pthread_mutex_lock(mutex), "pthread_mutex_lock");
        raise(SIGKILL);
        _exit(101);
    }
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child");
    return mutex;
}

static const char *result_name(int error)
{
    switch (error) {
    case 0: return "Ok(())";
    case EBUSY: return "Err(EBUSY)";
    case EOWNERDEAD: return "Err(EOWNERDEAD)";
    case ENOTRECOVERABLE: return "Err(ENOTRECOVERABLE)";
    default: return strerror(error);
    }
}

int main(void)
{
    // ANCHOR: main
    int plain = pthread_mutex_trylock(orphan(PTHREAD_MUTEX_STALLED));

    pthread_mutex_t *mutex = orphan(PTHREAD_MUTEX_ROBUST);
    int first_lock = pthread_mutex_lock(mutex);
    check(pthread_mutex_consistent(mutex), "pthread_mutex_consistent");
    check(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
    int repaired = pthread_mutex_lock(mutex);

    mutex = orphan(PTHREAD_MUTEX_ROBUST);
    int second_lock = pthread_mutex_lock(mutex);
    check(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
    int forgotten = pthread_mutex_lock(mutex);
    // ANCHOR_END: main
    printf("not robust:                try again: %s\n", result_name(plain));
    printf("robust: %s, repaired, then: %s\n", result_name(first_lock), result_name(repaired));
    printf("robust: %s, unlocked, then: %s\n", result_name(second_lock), result_name(forgotten));
    assert(plain == EBUSY && first_lock == EOWNERDEAD && repaired == 0);
    assert(second_lock == EOWNERDEAD && forgotten == ENOTRECOVERABLE);
    return 0;
}
