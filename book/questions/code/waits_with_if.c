#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER;
static int items[64], count;

void put(int item)
{
    pthread_mutex_lock(&lock);
    if (count < 64)
        items[count++] = item;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&lock);
}

int take(void)
{
    pthread_mutex_lock(&lock);
    if (count == 0)
        pthread_cond_wait(&not_empty, &lock);
    int item = items[--count];
    pthread_mutex_unlock(&lock);
    return item;
}
