// What mmap refuses, by which error, and that a refusal is MAP_FAILED and no null pointer.

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
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
// Asks for private anonymous memory, or for what the caller makes of it: 0, or what
// errno says.
static int ask(void **start, void *at, size_t len, int flags)
{
    *start = mmap(at, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    return *start == MAP_FAILED ? errno : 0;
}

int main(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *start, *page, *other;
    int no_length = ask(&start, NULL, 0, flags);
    int no_kind = ask(&other, NULL, 1, MAP_ANONYMOUS);
    assert(ask(&page, NULL, 1, flags) == 0);
    int inside_a_page = ask(&other, (char *)page + 1, 1, flags | MAP_FIXED);
    int forgotten = ask(&other, NULL, 1, MAP_PRIVATE);
    int too_long = ask(&other, NULL, SIZE_MAX, flags);
    // ANCHOR_END: main
    printf("length 0:                    %s\n", name(no_length));
    printf("neither private nor shared:  %s\n", name(no_kind));
    printf("MAP_FIXED inside a page:     %s\n", name(inside_a_page));
    printf("MAP_ANONYMOUS left out:      %s\n", name(forgotten));
    printf("more than all addresses:     %s\n", name(too_long));
    bool null = start == NULL, failed = start == MAP_FAILED;
    printf("a refusal is a null pointer: %s, and MAP_FAILED: %s\n", null ? "true" : "false",
           failed ? "true" : "false");
    assert(no_length == EINVAL);
    assert(no_kind == EINVAL);
    assert(inside_a_page == EINVAL);
    assert(forgotten == EBADF);
    assert(too_long == ENOMEM);
    assert(failed && !null);
}
