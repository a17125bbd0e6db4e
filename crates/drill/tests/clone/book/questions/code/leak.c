#include <sys/mman.h>

int give_back(void *start, unsigned long len)
{
    munmap(start, 1);
    return 0;
}
