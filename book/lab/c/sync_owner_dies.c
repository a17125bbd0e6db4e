// Which locks the kernel releases or marks when their owner is killed: record locks and robust mutexes, no others.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

static void *map(size_t len)
{
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Each of these functions tries to take a lock. It returns 0 or an error number, as the pthread functions do.
static int try_semaphore(void *lock) { return sem_trywait(lock) == 0 ? 0 : errno; }
static int try_spinlock(void *lock) { return pthread_spin_trylock(lock); }
static int try_read_write_lock(void *lock) { return pthread_rwlock_trywrlock(lock); }
static int try_mutex(void *lock) { return pthread_mutex_trylock(lock); }

// Tries to lock a whole file.
static int try_record_lock(void *file)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(*(int *)file, F_SETLK, &whole) == 0 ? 0 : errno;
}

static sem_t *new_semaphore(void)
{
    sem_t *semaphore = map(sizeof *semaphore);
    must(sem_init(semaphore, 1, 1) == 0, "sem_init");
    return semaphore;
}

static void *new_spinlock(void)
{
    void *lock = map(sizeof(pthread_spinlock_t));
    check(pthread_spin_init(lock, PTHREAD_PROCESS_SHARED), "pthread_spin_init");
    return lock;
}

static pthread_rwlock_t *new_read_write_lock(void)
{
    pthread_rwlock_t *lock = map(sizeof *lock);
    pthread_rwlockattr_t attributes;
    check(pthread_rwlockattr_init(&attributes), "pthread_rwlockattr_init");
    check(pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_rwlock_init(lock, &attributes), "pthread_rwlock_init");
    return lock;
}

static pthread_mutex_t *new_mutex(int robust)
{
    pthread_mutex_t *mutex = map(sizeof *mutex);
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "setpshared");
    check(pthread_mutexattr_setrobust(&attributes, robust), "setrobust");
    check(pthread_mutex_init(mutex, &attributes), "pthread_mutex_init");
    return mutex;
}

static const char *name_of(int error)
{
    return error == 0 ? "locked" : strerrorname_np(error);
}

// ANCHOR: main
// Kills a child that has taken a lock. Returns what a second attempt returns after that.
static int outcome(const char *name, int (*try)(void *), void *lock)
{
    atomic_int *taken = map(sizeof *taken);
    pid_t parent = getpid(), child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
            _exit(101);
        atomic_store(taken, try(lock) == 0 ? 1 : -1);
        for (;;)
            pause();
    }
    while (atomic_load(taken) == 0)
        sched_yield();
    assert(atomic_load(taken) == 1);
    int before = try(lock);
    must(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "kill");
    int after = try(lock);
    printf("%-16s %-12s %s\n", name, name_of(before), name_of(after));
    // ANCHOR_END: main
    assert(before != 0);
    return after;
}

int main(void)
{
    int file = memfd_create("lock", MFD_CLOEXEC);
    must(file != -1, "memfd_create");
    struct {
        const char *name;
        int (*try)(void *);
        void *lock;
        int expected;
    } table[] = {
        {"semaphore of 1", try_semaphore, new_semaphore(), EAGAIN},
        {"spinlock", try_spinlock, new_spinlock(), EBUSY},
        {"read-write lock", try_read_write_lock, new_read_write_lock(), EBUSY},
        {"mutex", try_mutex, new_mutex(PTHREAD_MUTEX_STALLED), EBUSY},
        {"robust mutex", try_mutex, new_mutex(PTHREAD_MUTEX_ROBUST), EOWNERDEAD},
        {"record lock", try_record_lock, &file, 0},
    };
    puts("                 owner alive  owner killed");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int after = outcome(table[i].name, table[i].try, table[i].lock);
        assert(after == table[i].expected);
    }
    return 0;
}
