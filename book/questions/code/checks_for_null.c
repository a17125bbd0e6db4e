#include <stddef.h>
#include <sys/mman.h>

/* Memory of its own for a worker, or null. */
void *scratch(size_t len)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (start == NULL)
        return NULL;
    return start;
}
