// A process-shared mutex serializes two processes: a thousand increments by each of them make 2000.

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
    pthread_mutex_t mutex;
    int counter;
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

// ANCHOR: new
static void set_up(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_mutex_init(mutex, &attributes), "pthread_mutex_init");
    check(pthread_mutexattr_destroy(&attributes), "pthread_mutexattr_destroy");
}
// ANCHOR_END: new

// ANCHOR: main
static void add_a_thousand(struct shared *shared)
{
    for (int i = 0; i < 1000; i++) {
        check(pthread_mutex_lock(&shared->mutex), "pthread_mutex_lock");
        shared->counter++;
        check(pthread_mutex_unlock(&shared->mutex), "pthread_mutex_unlock");
    }
}

static struct shared *two_thousand(void)
{
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED, "mmap");
    set_up(&shared->mutex);
    pid_t child = fork();
    must(child != -1, "fork");
    add_a_thousand(shared);
    if (child == 0)
        _exit(0);
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    printf("%d\n", shared->counter);
    return shared;
}
// ANCHOR_END: main

int main(void)
{
    struct shared *shared = two_thousand();
    assert(shared->counter == 2000);

    check(pthread_mutex_lock(&shared->mutex), "pthread_mutex_lock");
    int locked = pthread_mutex_destroy(&shared->mutex);
    check(pthread_mutex_unlock(&shared->mutex), "pthread_mutex_unlock");
    int unlocked = pthread_mutex_destroy(&shared->mutex);
    printf("destroyed while locked: %s\n", locked == EBUSY ? "Err(EBUSY)" : strerror(locked));
    printf("destroyed after:        %s\n", unlocked == 0 ? "Ok(())" : strerror(unlocked));
    assert(locked == EBUSY && unlocked == 0);
    must(munmap(shared, sizeof *shared) == 0, "munmap");
    return 0;
}
