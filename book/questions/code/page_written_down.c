#include <stddef.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

/* Returns the lowest byte of a stack of 16 pages with a guard page below it, or NULL on failure. */
void *new_stack(void)
{
    size_t len = 17 * PAGE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *start = mmap(NULL, len, PROT_NONE, flags, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (mprotect(start + PAGE, len - PAGE, PROT_READ | PROT_WRITE) != 0) {
        munmap(start, len);
        return NULL;
    }
    return start + PAGE;
}
