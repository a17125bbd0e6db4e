#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

struct board {
    unsigned char *start;
    size_t len; /* whole pages */
};

int make(struct board *board, size_t pages)
{
    board->len = pages * (size_t)sysconf(_SC_PAGESIZE);
    int flags = MAP_SHARED | MAP_ANONYMOUS;
    void *start = mmap(NULL, board->len, PROT_READ | PROT_WRITE, flags, -1, 0);
    board->start = start == MAP_FAILED ? NULL : start;
    return board->start == NULL ? -1 : 0;
}

/* Makes the board all zeros again, and returns its pages to the kernel. */
int wipe(struct board *board)
{
    return madvise(board->start, board->len, MADV_DONTNEED);
}
