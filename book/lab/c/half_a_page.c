// Half a page (4 KiB if pages have 8 KiB) is invalid as an offset or address, and is rounded up as a length.

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

// Returns the name of a call's result. Must be called before errno changes.
static const char *result(int returned)
{
    if (returned == 0)
        return "Ok(())";
    return errno == EINVAL ? "Err(EINVAL)" : "another error";
}

int main(void)
{
    long page = sysconf(_SC_PAGESIZE);
    assert(page > 0);
    // ANCHOR: main
    size_t half = (size_t)page / 2;
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *start = mmap(NULL, 4 * half, prot, flags, -1, 0);
    assert(start != MAP_FAILED);
    char *inside = start + half;

    void *with_offset = mmap(NULL, 1, prot, flags, -1, (off_t)half);
    const char *mapped = result(with_offset == MAP_FAILED ? -1 : 0);
    const char *protected = result(mprotect(inside, half, PROT_NONE));
    const char *advised = result(madvise(inside, half, MADV_DONTNEED));
    const char *unmapped = result(munmap(inside, half));
    int from_the_start = munmap(start, half);
    // ANCHOR_END: main
    assert(from_the_start == 0);
    unsigned char residence[2];
    int gone = mincore(start, 4 * half, residence) == -1 ? errno : 0;
    int left = mincore(start + 2 * half, 2 * half, residence) == -1 ? errno : 0;

    const char *calls[4] = {"mmap, offset half a page:", "mprotect in mid-page:",
                            "madvise in mid-page:", "munmap in mid-page:"};
    const char *results[4] = {mapped, protected, advised, unmapped};
    for (int i = 0; i < 4; i++) {
        printf("%-30s %s\n", calls[i], results[i]);
        assert(results[i][0] == 'E');
    }
    printf("munmap of the first half:      %s\n", result(from_the_start));
    printf("the second half is mapped:     %s\n", gone == 0 ? "true" : "false");
    printf("the next page is mapped:       %s\n", left == 0 ? "true" : "false");
    assert(gone == ENOMEM && left == 0);
    return 0;
}
