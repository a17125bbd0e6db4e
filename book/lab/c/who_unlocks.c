// A mutex has an owner, who must unlock it. A semaphore has none: anybody may post it.

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
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

static void *unlock(void *mutex)
{
    return (void *)(intptr_t)pthread_mutex_unlock(mutex);
}

// Waits for a semaphore that a child posts.
static bool post_elsewhere(void)
{
    int status;
    sem_t *semaphore = mmap(NULL, sizeof *semaphore, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(semaphore != MAP_FAILED && sem_init(semaphore, 1, 0) == 0, "sem_init");
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0)
        _exit(sem_post(semaphore) == 0 ? 0 : 1);
    bool posted = sem_wait(semaphore) == 0;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    return posted;
}

int main(void)
{
    bool posted = post_elsewhere();
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex;
    pthread_t other;
    void *by_another;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK), "pthread_mutexattr_settype");
    check(pthread_mutex_init(&mutex, &attributes), "pthread_mutex_init");
    // ANCHOR: main
    check(pthread_mutex_lock(&mutex), "pthread_mutex_lock");
    check(pthread_create(&other, NULL, unlock, &mutex), "pthread_create");
    check(pthread_join(other, &by_another), "pthread_join");
    int twice = pthread_mutex_lock(&mutex);
    // ANCHOR_END: main
    assert((intptr_t)by_another == EPERM && twice == EDEADLK && posted);
    printf("mutex, unlocked by another thread: EPERM\n");
    printf("mutex, locked twice by its owner: EDEADLK\n");
    printf("semaphore, posted by another process: Ok(())\n");
    return 0;
}
