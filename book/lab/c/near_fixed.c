// mmap at an occupied address: a hint is ignored, MAP_FIXED_NOREPLACE fails, MAP_FIXED replaces the mapping.

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// ANCHOR: main
// Calls mmap with the address of a page that holds 7. Returns where the new mapping is,
// and stores the value that the page holds afterwards.
static const char *map_over(int extra, int *value)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    volatile char *occupied = mmap(NULL, page, prot, flags, -1, 0);
    must(occupied != MAP_FAILED, "mmap");
    *occupied = 7;
    char *start = mmap((void *)occupied, page, prot, flags | extra, -1, 0);
    const char *place = start == occupied ? "mapped there" : "mapped elsewhere";
    if (start == MAP_FAILED) {
        must(errno == EEXIST, "mmap");
        place = "EEXIST";
    }
    *value = *occupied;
    return place;
}
// ANCHOR_END: main

int main(void)
{
    static const struct {
        const char *name;
        int extra;
        const char *place;
        int value;
    } rows[] = {
        {"only a hint:", 0, "mapped elsewhere", 7},
        {"MAP_FIXED_NOREPLACE:", MAP_FIXED_NOREPLACE, "EEXIST", 7},
        {"MAP_FIXED:", MAP_FIXED, "mapped there", 0},
    };
    for (int i = 0; i < 3; i++) {
        int value;
        const char *place = map_over(rows[i].extra, &value);
        printf("%-21s%-17s the page reads %d\n", rows[i].name, place, value);
        assert(strcmp(place, rows[i].place) == 0 && value == rows[i].value);
    }
    return 0;
}
