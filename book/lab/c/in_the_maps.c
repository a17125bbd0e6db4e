// What /proc/self/maps calls anonymous memory: nothing where it is private, a deleted /dev/zero where it is shared.

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

struct line {
    char rights[5];
    char path[256];
};

// The line of /proc/self/maps that the address lies in.
static struct line maps_line(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps != NULL, "/proc/self/maps");
    struct line found = {"", ""};
    char text[8192];
    while (fgets(text, sizeof text, maps) != NULL) {
        unsigned long start, end;
        struct line line = {"", ""};
        // Offset, device and inode come before the path, which may hold spaces or be missing.
        int read = sscanf(text, "%lx-%lx %4s %*s %*s %*s %255[^\n]", &start, &end,
                          line.rights, line.path);
        must(read >= 3, "a line of the maps");
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
    printf("private: %s \"%s\"\n", private.rights, private.path);
    printf("shared:  %s \"%s\"\n", shared.rights, shared.path);
    // ANCHOR_END: main
    assert(strcmp(private.rights, "rw-p") == 0 && strcmp(private.path, "") == 0);
    assert(strcmp(shared.rights, "rw-s") == 0 && strcmp(shared.path, "/dev/zero (deleted)") == 0);
}
