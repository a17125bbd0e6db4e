// With MAP_ANONYMOUS, Linux ignores the file descriptor and any offset that is a multiple of the page size.

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

// Maps one page. Returns 0 or the error.
static int map(int fd, long offset)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *start = mmap(NULL, 1, PROT_READ | PROT_WRITE, flags, fd, offset);
    return start == MAP_FAILED ? errno : 0;
}

static const char *name(int error)
{
    switch (error) {
    case 0:
        return "Ok(())";
    case EINVAL:
        return "Err(EINVAL)";
    default:
        return "another error";
    }
}

int main(void)
{
    // ANCHOR: main
    long page = sysconf(_SC_PAGESIZE);
    printf("fd -1, offset 0:        %s\n", name(map(-1, 0)));
    printf("fd 12345, offset 0:     %s\n", name(map(12345, 0)));
    printf("fd -1, offset 1 page:   %s\n", name(map(-1, page)));
    printf("fd -1, offset 1 byte:   %s\n", name(map(-1, 1)));
    // ANCHOR_END: main
    assert(page > 0);
    assert(map(-1, 0) == 0);
    assert(map(12345, 0) == 0);
    assert(map(-1, page) == 0);
    assert(map(-1, 1) == EINVAL);
}
