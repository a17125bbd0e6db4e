// Where fork fails and nobody looks, the one process that there is does half of the work, and reports success.
#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int holds, const char *call)
{
    if (!holds) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// From here on the kernel refuses this process every fork, with EAGAIN: a seccomp(2) filter, which needs no privilege.
static void refuse_forks(void)
{
#ifdef SYS_fork
    const unsigned fork_number = SYS_fork;
#else
    const unsigned fork_number = SYS_clone; // aarch64 has no fork(2): there glibc always takes clone(2)
#endif
#ifdef SYS_clone3
    const unsigned clone3_number = SYS_clone3;
#else
    const unsigned clone3_number = SYS_clone;
#endif
    // The number of the call is the first field of what the filter is shown. A match skips to the refusal.
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, clone3_number, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fork_number, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS");
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "PR_SET_SECCOMP");
}

int main(void)
{
    refuse_forks();
    // The calls go unchecked on purpose, as in the chapter.
    // ANCHOR: main
    int *counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(counter != MAP_FAILED, "mmap");
    pid_t pid = fork();
    if (pid == 0) {
        *counter += 1000;
        exit(0);
    } else {
        *counter += 1000;
        waitpid(pid, NULL, 0);
        printf("final counter: %d (expect 2000)\n", *counter);
    }
    // ANCHOR_END: main
    assert(pid == -1 && *counter == 1000);
    return 0;
}
