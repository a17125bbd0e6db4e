// Shows which mmap arguments fail with which error, and that mmap returns MAP_FAILED and not a null pointer.

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *name(int error)
{
    switch (error) {
    case 0:
        return "Ok(())";
    case EINVAL:
        return "Err(EINVAL)";
    case EBADF:
        return "Err(EBADF)";
    case ENOMEM:
        return "Err(ENOMEM)";
    default:
        return "another error";
    }
}

// ANCHOR: main
// Calls mmap, and stores the address. Returns 0 or the error.
static int map(void **start, void *at, size_t len, int flags)
{
    *start = mmap(at, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    return *start == MAP_FAILED ? errno : 0;
}

int main(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *start, *page, *other;
    int no_length = map(&start, NULL, 0, flags);
    int no_kind = map(&other, NULL, 1, MAP_ANONYMOUS);
    if (map(&page, NULL, 1, flags) != 0) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    int fixed_unaligned = map(&other, (char *)page + 1, 1, flags | MAP_FIXED);
    int no_anonymous = map(&other, NULL, 1, MAP_PRIVATE);
    int too_long = map(&other, NULL, SIZE_MAX, flags);
    // ANCHOR_END: main
    printf("length 0:                    %s\n", name(no_length));
    printf("neither private nor shared:  %s\n", name(no_kind));
    printf("MAP_FIXED inside a page:     %s\n", name(fixed_unaligned));
    printf("MAP_ANONYMOUS left out:      %s\n", name(no_anonymous));
    printf("more than all addresses:     %s\n", name(too_long));
    bool null = start == NULL, failed = start == MAP_FAILED;
    printf("the result is a null pointer: %s, MAP_FAILED: %s\n", null ? "true" : "false",
           failed ? "true" : "false");
    assert(no_length == EINVAL);
    assert(no_kind == EINVAL);
    assert(fixed_unaligned == EINVAL);
    assert(no_anonymous == EBADF);
    assert(too_long == ENOMEM);
    assert(failed && !null);
}
