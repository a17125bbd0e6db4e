// Output buffered before fork appears twice if the child ends with exit(3), and once if it ends with _exit(2).

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

// Runs a process that prints "once " and forks a child, which ends with `end`. Stores the output of both in `text`.
static void printed(void (*end)(int), char *text, size_t size)
{
    int ends[2], status;
    must(pipe(ends) == 0, "pipe");
    pid_t writer = fork();
    must(writer != -1, "fork");
    if (writer == 0) {
        must(dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO, "dup2");
        // ANCHOR: main
        must(printf("once ") == 5, "printf");
        pid_t child = fork();
        must(child != -1, "fork");
        if (child == 0)
            end(0);
        must(waitpid(child, &status, 0) == child && status == 0, "child");
        exit(0);
        // ANCHOR_END: main
    }
    must(close(ends[1]) == 0, "close");
    size_t len = 0;
    ssize_t more;
    while ((more = read(ends[0], text + len, size - len - 1)) > 0)
        len += (size_t)more;
    must(more == 0 && close(ends[0]) == 0, "read");
    must(waitpid(writer, &status, 0) == writer && status == 0, "writer");
    while (len > 0 && text[len - 1] == ' ')
        len--;
    text[len] = '\0';
}

int main(void)
{
    char by_exit[64], by_underscore_exit[64];
    printed(exit, by_exit, sizeof by_exit);
    printed(_exit, by_underscore_exit, sizeof by_underscore_exit);
    printf("exit:  %s\n", by_exit);
    printf("_exit: %s\n", by_underscore_exit);
    assert(strcmp(by_exit, "once once") == 0 && strcmp(by_underscore_exit, "once") == 0);
    return 0;
}
