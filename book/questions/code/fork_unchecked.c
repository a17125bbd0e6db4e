#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Returns the sum that a parent and a child count together, or -1 if a system call fails. */
int count_together(void)
{
    atomic_int *counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counter == MAP_FAILED)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        atomic_fetch_add(counter, 1000);
        _exit(0);
    }
    atomic_fetch_add(counter, 1000);
    int sum = waitpid(child, NULL, 0) == child ? *counter : -1;
    munmap(counter, sizeof *counter);
    return sum;
}
