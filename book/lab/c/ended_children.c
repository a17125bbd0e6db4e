// What remains of a child that has ended, who becomes the parent of an orphan, and how many processes three forks make.

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
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

// Returns an atomic with the value 0 in memory that children share.
static atomic_int *shared(void)
{
    atomic_int *value = mmap(NULL, sizeof *value, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(value != MAP_FAILED, "mmap");
    return value;
}

// Returns the letter of a process's state in /proc/PID/stat, after the name in parentheses.
static char state(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "r");
    must(stat != NULL && fgets(line, sizeof line, stat) != NULL && fclose(stat) == 0, path);
    char *end = strrchr(line, ')');
    must(end != NULL, "a name in parentheses");
    return end[2];
}

// Returns the number of processes that run the code after three forks.
static int after_three_forks(void)
{
    atomic_int *processes = shared();
    pid_t first = fork();
    must(first != -1, "fork");
    if (first == 0) {
        for (int number = 0; number < 3; number++)
            must(fork() != -1, "fork");
        atomic_fetch_add(processes, 1);
        // Each process waits for its own children, so that none runs on after the first has ended.
        while (wait(NULL) != -1) {
        }
        _exit(0);
    }
    must(waitpid(first, NULL, 0) == first, "waitpid");
    return *processes;
}

// Returns whether the parent of an orphan is another process than the one that forked it.
static bool orphan_has_another_parent(void)
{
    atomic_int *answer = shared();
    pid_t parent = fork();
    must(parent != -1, "fork");
    if (parent == 0) {
        pid_t me = getpid(), orphan = fork();
        must(orphan != -1, "fork");
        if (orphan == 0) {
            while (getppid() == me)
                sched_yield();
            atomic_store(answer, 1 + (getppid() != me));
        }
        _exit(0);
    }
    must(waitpid(parent, NULL, 0) == parent, "waitpid");
    while (atomic_load(answer) == 0)
        sched_yield();
    return atomic_load(answer) == 2;
}

int main(void)
{
    // ANCHOR: main
    pid_t pid = fork();
    must(pid != -1, "fork");
    if (pid == 0)
        _exit(0);
    siginfo_t info; // WNOWAIT looks at the child without waiting for it
    must(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0, "waitid");
    char zombie = state(pid);
    bool exists = kill(pid, 0) == 0;
    must(waitpid(pid, NULL, 0) == pid, "waitpid");
    bool gone = kill(pid, 0) == -1 && errno == ESRCH;
    // ANCHOR_END: main
    assert(zombie == 'Z' && exists && gone);
    printf("a child that has ended: state %c, and kill(pid, 0) is Ok(())\n", zombie);
    printf("after waitpid: ESRCH\n");
    fflush(stdout);
    int processes = after_three_forks();
    printf("three forks: %d processes\n", processes);
    assert(processes == 8);
    fflush(stdout);
    bool another = orphan_has_another_parent();
    printf("an orphan's parent is another process: %s\n", another ? "true" : "false");
    assert(another);
    return 0;
}
