// A private mapping is private to a process: other threads see a write, the parent of the process does not.

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
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

static void *write_3(void *byte)
{
    atomic_store((atomic_uchar *)byte, 3);
    return NULL;
}

int main(void)
{
    atomic_uchar *byte = mmap(NULL, 1, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(byte != MAP_FAILED, "mmap");
    // ANCHOR: main
    atomic_store(byte, 1);

    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        atomic_store(byte, 2);
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    int after_child = atomic_load(byte);
    printf("a child wrote 2:  this thread reads %d\n", after_child);

    pthread_t thread;
    check(pthread_create(&thread, NULL, write_3, byte), "pthread_create");
    check(pthread_join(thread, NULL), "pthread_join");
    int after_thread = atomic_load(byte);
    printf("a thread wrote 3: this thread reads %d\n", after_thread);
    // ANCHOR_END: main
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert(after_child == 1 && after_thread == 3);
}
