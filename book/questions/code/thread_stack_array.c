#include <pthread.h>

static void set_stack(pthread_attr_t *attributes)
{
    pthread_attr_init(attributes);
    pthread_attr_setstacksize(attributes, 128 * 1024);
}

static void *work(void *argument)
{
    int table[64 * 1024];
    for (int number = 0; number < 64 * 1024; number++)
        table[number] = number;
    *(int *)argument = table[64 * 1024 - 1];
    return argument;
}

int run(pthread_t *thread, int *result)
{
    pthread_attr_t attributes;
    set_stack(&attributes);
    return pthread_create(thread, &attributes, work, result);
}
