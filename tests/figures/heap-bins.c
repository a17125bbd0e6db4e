// Checks book/src/figures/heap-bins.svg: the chunks of glibc's main heap, step by step. It reads freed memory on purpose.
#include <assert.h>
#include <gnu/libc-version.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A chunk begins two words before its block: the size of a free chunk before it, and its own size with three flags.
static size_t header(char *block) { return ((volatile size_t *)block)[-1]; }
static size_t size_of(char *block) { return header(block) & ~(size_t)7; }
static int is_previous_in_use(char *block) { return header(block) & 1; }

// A free chunk begins with a pointer to the next one in its list. If there is no other, it is the head of the list.
static uintptr_t next_in_list(char *block) { return ((volatile uintptr_t *)block)[0]; }

int main(void) {
    if (sizeof(void *) != 8 || strverscmp(gnu_get_libc_version(), "2.42") >= 0) {
        puts("skipped: the figure shows a 64-bit glibc before 2.42");
        return 0;
    }

    // 1
    char *a = malloc(24), *b = malloc(2000), *c = malloc(2000), *d = malloc(24), *e = malloc(2000);
    assert(size_of(a) == 32 && size_of(b) == 2016 && size_of(c) == 2016 && size_of(d) == 32 && size_of(e) == 2016);
    assert(a + 32 == b && b + 2016 == c && c + 2016 == d && d + 32 == e);
    size_t top = size_of(e + 2016);

    // 2. The next chunk takes A for used.
    free(a);
    assert(is_previous_in_use(b));

    // 3
    free(b);
    assert(!is_previous_in_use(c));
    uintptr_t unsorted = next_in_list(b);

    // 4
    free(c);
    assert(size_of(b) == 4032 && next_in_list(b) == unsorted && !is_previous_in_use(d));

    // 5
    char *f = malloc(3104), *rest = f + 3120;
    assert(f == b && size_of(f) == 3120);
    assert(size_of(rest) == 912 && next_in_list(rest) == unsorted);

    // 6
    free(e);
    assert(size_of(e) == top + 2016);

    // 7. The heads of the bins lie 16 bytes apart; the unsorted bin has index 1, and a small bin its size / 16.
    char *g = malloc(1500);
    assert(g == e && size_of(g) == 1520 && size_of(g + 1520) == top + 2016 - 1520);
    assert(next_in_list(rest) == unsorted + (912 / 16 - 1) * 16);

    // The tcache has kept A.
    assert(malloc(24) == a);
}
