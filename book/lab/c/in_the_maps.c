// Shows the path of anonymous memory in /proc/self/maps: none if it is private, a deleted /dev/zero if it is shared.

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

struct line {
    char permissions[5];
    char path[256];
};

// Returns the line of /proc/self/maps that contains `address`.
static struct line maps_line(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps != NULL, "/proc/self/maps");
    struct line found = {"", ""};
    char text[8192];
    while (fgets(text, sizeof text, maps) != NULL) {
        unsigned long start, end;
        struct line line = {"", ""};
        // Offset, device and inode come before the path, which may contain spaces or be missing.
        int read = sscanf(text, "%lx-%lx %4s %*s %*s %*s %255[^\n]", &start, &end,
                          line.permissions, line.path);
        must(read >= 3, "parsing /proc/self/maps");
        if (start <= (uintptr_t)address && (uintptr_t)address < end)
            found = line;
    }
    must(fclose(maps) == 0, "fclose");
    return found;
}

static void *map(int flags)
{
    void *start = mmap(NULL, 1, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

int main(void)
{
    // ANCHOR: main
    struct line private = maps_line(map(MAP_PRIVATE));
    struct line shared = maps_line(map(MAP_SHARED));
    printf("private: %s \"%s\"\n", private.permissions, private.path);
    printf("shared:  %s \"%s\"\n", shared.permissions, shared.path);
    // ANCHOR_END: main
    assert(strcmp(private.permissions, "rw-p") == 0 && strcmp(private.path, "") == 0);
    assert(strcmp(shared.permissions, "rw-s") == 0 && strcmp(shared.path, "/dev/zero (deleted)") == 0);
}
