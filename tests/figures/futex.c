// Checks book/src/figures/futex.svg: the values of the lock word, which is the first member of glibc's mutex.
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int word(void) {
    return __atomic_load_n(&mutex.__data.__lock, __ATOMIC_SEQ_CST);
}

static void *lock_too(void *unused) {
    assert(pthread_mutex_lock(&mutex) == 0);
    return unused;
}

int main(void) {
    assert(word() == 0);
    assert(pthread_mutex_lock(&mutex) == 0);
    assert(word() == 1);
    assert(pthread_mutex_unlock(&mutex) == 0);
    assert(word() == 0);

    assert(pthread_mutex_lock(&mutex) == 0);
    pthread_t thread;
    assert(pthread_create(&thread, NULL, lock_too, NULL) == 0);
    while (word() != 2)
        usleep(1000);
    assert(pthread_mutex_unlock(&mutex) == 0);
    assert(pthread_join(thread, NULL) == 0);
    // The thread that was woken has set the word to 2 itself.
    assert(word() == 2);
}
