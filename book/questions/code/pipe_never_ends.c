#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Prints what a child writes into a pipe. Returns 0, or -1 on failure. */
int print_output_of_child(void)
{
    int ends[2];
    char buffer[256];
    ssize_t count;
    if (pipe(ends) == -1)
        return -1;
    pid_t child = fork();
    if (child == -1)
        return -1;
    if (child == 0) {
        close(ends[0]);
        write(ends[1], "hello\n", 6);
        _exit(0);
    }
    while ((count = read(ends[0], buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, (size_t)count, stdout);
    close(ends[0]);
    return waitpid(child, NULL, 0) == child ? 0 : -1;
}
