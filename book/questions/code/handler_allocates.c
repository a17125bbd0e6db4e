#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
    printf("got signal %d\n", signal);
    stop = 1;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    for (unsigned long number = 0; !stop; number++)
        printf("%lu\n", number);
    write(STDOUT_FILENO, "bye\n", 4);
    return 0;
}
