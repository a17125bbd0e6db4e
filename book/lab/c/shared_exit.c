// Output that waits in a buffer at the fork comes twice where the child ends by exit(3), and once with _exit(2).
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int holds, const char *call)
{
    if (!holds) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// What arrives of "once " where a process prints it before it forks, and the forked one ends by `end`.
static void printed(void (*end)(int), char *text, size_t room)
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
    while ((more = read(ends[0], text + len, room - len - 1)) > 0)
        len += (size_t)more;
    must(more == 0 && close(ends[0]) == 0, "read");
    must(waitpid(writer, &status, 0) == writer && status == 0, "writer");
    while (len > 0 && text[len - 1] == ' ')
        len--;
    text[len] = '\0';
}

int main(void)
{
    char by_exit[64], at_once[64];
    printed(exit, by_exit, sizeof by_exit);
    printed(_exit, at_once, sizeof at_once);
    printf("exit:  %s\n", by_exit);
    printf("_exit: %s\n", at_once);
    assert(strcmp(by_exit, "once once") == 0 && strcmp(at_once, "once") == 0);
    return 0;
}
