#include <stddef.h>
#include <sys/mman.h>

/* Returns private memory for a worker, or NULL on failure. */
void *scratch(size_t len)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (start == NULL)
        return NULL;
    return start;
}
