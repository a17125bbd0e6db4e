#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

struct tally { pthread_mutex_t lock; long sum; };

static int set_up(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    int error = pthread_mutexattr_init(&attr);
    if (error == 0)
        error = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    return error == 0 ? pthread_mutex_init(lock, &attr) : error;
}

static int add(struct tally *tally)
{
    int error = 0;
    for (int round = 0; round < 1000000 && error == 0; round++) {
        error = pthread_mutex_lock(&tally->lock);
        tally->sum += error == 0;
        if (error == 0)
            error = pthread_mutex_unlock(&tally->lock);
    }
    return error;
}

/* Returns the sum that both processes count, or -1 on failure. */
long add_together(struct tally *tally)
{
    int status, error = set_up(&tally->lock);
    pid_t child = error == 0 ? fork() : -1;
    if (child == 0)
        _exit(set_up(&tally->lock) != 0 || add(tally) != 0);
    if (child == -1)
        return -1;
    error = add(tally);
    if (waitpid(child, &status, 0) != child || status != 0 || error != 0)
        return -1;
    return tally->sum;
}
