// The three low bits of glibc's size word: previous chunk in use, separate mapping, another thread's arena.

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__GLIBC__) && SIZE_MAX > UINT32_MAX

// ANCHOR: main
// Allocates a block, and returns the word before it.
static size_t size_word(size_t len)
{
    size_t *volatile block = malloc(len);
    assert(block != NULL);
    return block[-1];
}

static void *thread_main(void *word)
{
    size_word(1);
    *(size_t *)word = size_word(24);
    return NULL;
}

int main(void)
{
    size_word(1); // The first call sets up the heap.
    size_t small = size_word(24);
    size_t mapped = size_word(4 << 20);
    size_t other;
    pthread_t thread;
    int error = pthread_create(&thread, NULL, thread_main, &other);
    assert(error == 0);
    error = pthread_join(thread, NULL);
    assert(error == 0);
    // ANCHOR_END: main
    printf("24 bytes: flags %zu\n", small % 8);
    printf("4 MiB: flags %zu\n", mapped % 8);
    printf("24 bytes, second thread: flags %zu\n", other % 8);
    assert(small == 32 + 1 && other == 32 + 1 + 4);
    assert(mapped % 8 == 2);
    return 0;
}

#else

int main(void)
{
    puts("this program looks at the headers of glibc's malloc on 64-bit systems");
    return 77;
}

#endif
