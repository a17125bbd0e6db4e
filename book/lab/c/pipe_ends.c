// A pipe ends when its last writer has closed it, and cannot be written after its last reader has.

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
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

// Writes to a pipe without a reader, in a child that treats SIGPIPE in this way. Returns the child's wait status.
static int write_without_reader(void (*sigpipe)(int))
{
    int status, ends[2];
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        must(signal(SIGPIPE, sigpipe) != SIG_ERR, "signal");
        must(pipe(ends) == 0 && close(ends[0]) == 0, "pipe");
        _exit(write(ends[1], "x", 1) == -1 ? errno : 0);
    }
    must(waitpid(child, &status, 0) == child, "waitpid");
    return status;
}

int main(void)
{
    char byte;
    int ends[2];
    // ANCHOR: main
    must(pipe2(ends, O_NONBLOCK) == 0, "pipe2");
    ssize_t with_writer = read(ends[0], &byte, 1); // would wait, if it could
    int error = errno;
    must(close(ends[1]) == 0, "close");
    ssize_t without_writer = read(ends[0], &byte, 1); // the end of the file
    // ANCHOR_END: main
    assert(with_writer == -1 && error == EAGAIN);
    printf("empty, write end open: EAGAIN\n");
    printf("empty, write end closed: %d bytes\n", (int)without_writer);
    assert(without_writer == 0);
    fflush(stdout);

    int status = write_without_reader(SIG_IGN);
    assert(WIFEXITED(status) && WEXITSTATUS(status) == EPIPE);
    printf("read end closed, SIGPIPE ignored: EPIPE\n");
    fflush(stdout);
    status = write_without_reader(SIG_DFL);
    assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    printf("read end closed: killed by SIGPIPE\n");
    return 0;
}
