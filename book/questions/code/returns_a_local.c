#include <stdio.h>

char *greeting(const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "hello, %s", name);
    return text;
}
