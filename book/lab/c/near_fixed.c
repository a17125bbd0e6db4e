// An address that is taken: as a hint it is passed over, with MAP_FIXED_NOREPLACE refused, with MAP_FIXED replaced.
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void must(int holds, const char *call)
{
    if (!holds) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// ANCHOR: main
// Maps over a page that holds 7. Returns where the new mapping lies, and what the page
// reads then.
static const char *map_over(int extra, int *then)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int rights = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    volatile char *taken = mmap(NULL, page, rights, flags, -1, 0);
    must(taken != MAP_FAILED, "mmap");
    *taken = 7;
    char *start = mmap((void *)taken, page, rights, flags | extra, -1, 0);
    const char *place = start == taken ? "mapped there" : "mapped elsewhere";
    if (start == MAP_FAILED) {
        must(errno == EEXIST, "mmap");
        place = "EEXIST";
    }
    *then = *taken;
    return place;
}
// ANCHOR_END: main

int main(void)
{
    static const struct {
        const char *name;
        int extra;
        const char *place;
        int then;
    } rows[] = {
        {"only a hint:", 0, "mapped elsewhere", 7},
        {"MAP_FIXED_NOREPLACE:", MAP_FIXED_NOREPLACE, "EEXIST", 7},
        {"MAP_FIXED:", MAP_FIXED, "mapped there", 0},
    };
    for (int i = 0; i < 3; i++) {
        int then;
        const char *place = map_over(rows[i].extra, &then);
        printf("%-21s%-17s the page reads %d\n", rows[i].name, place, then);
        assert(strcmp(place, rows[i].place) == 0 && then == rows[i].then);
    }
    return 0;
}
