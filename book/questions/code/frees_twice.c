#include <stdio.h>
#include <stdlib.h>

/* Returns the first `len` bytes of a file, or NULL. */
char *load(const char *path, size_t len)
{
    char *buffer = malloc(len);
    FILE *file = fopen(path, "rb");
    if (buffer == NULL || file == NULL)
        goto fail;
    if (fread(buffer, 1, len, file) != len) {
        free(buffer);
        goto fail;
    }
    fclose(file);
    return buffer;

fail:
    if (file != NULL)
        fclose(file);
    free(buffer);
    return NULL;
}
