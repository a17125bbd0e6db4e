#include <stdlib.h>
#include <string.h>

/* Returns a copy of the string, or NULL. */
char *copy(const char *text)
{
    char *result = malloc(strlen(text));
    if (result == NULL)
        return NULL;
    return strcpy(result, text);
}
