#include <stdbool.h>

static int message;
static volatile bool ready;

void publish(int text)
{
    message = text;
    ready = true;
}

int receive(void)
{
    while (!ready) {
    }
    return message;
}
