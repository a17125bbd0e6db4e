#define _GNU_SOURCE
#include <sys/types.h>
#include <unistd.h>

extern char **environ;

/* Starts a program. Returns its process id, or -1 on failure. */
pid_t start(const char *path, char *const arguments[])
{
    pid_t child = vfork();
    if (child == 0) {
        execve(path, arguments, environ);
        return -1;
    }
    return child;
}
