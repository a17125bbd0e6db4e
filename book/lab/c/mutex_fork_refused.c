// If fork fails and the program ignores the error, the only process does half of the work and reports success.

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

// Installs a seccomp(2) filter with which every fork of this process fails with EAGAIN. This needs no privilege.
static void make_fork_fail(void)
{
#ifdef SYS_fork
    const unsigned fork_number = SYS_fork;
#else
    const unsigned fork_number = SYS_clone; // aarch64 has no fork system call: glibc uses clone there
#endif
#ifdef SYS_clone3
    const unsigned clone3_number = SYS_clone3;
#else
    const unsigned clone3_number = SYS_clone;
#endif
    // The first field of the filter's input is the system call number. A match skips to the EAGAIN statement.
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
    make_fork_fail();
    // The results of fork and waitpid are not checked on purpose, as in the chapter.
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
