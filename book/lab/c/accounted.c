// The kernel adds up private mappings that may be written: `ac` among the VmFlags of /proc/self/smaps.

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

// Ends the program where a call fails.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// One page, joined with no other mapping: what lies before and after it allows no access.
static void *map_alone(int rights, int flags)
{
    char *reserved = mmap(NULL, 3 * page_size, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(reserved != MAP_FAILED, "mmap");
    void *start = mmap(reserved + page_size, page_size, rights,
                       flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// `ac` where the mapping is accounted, `nr` where it is left out on request.
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
    must(fscanf(file, "%d", &mode) == 1, "a number");
    must(fclose(file) == 0, "fclose");
    return mode;
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;

    // ANCHOR: main
    expect(show("private, to write", map_alone(RW, MAP_PRIVATE)), "ac");
    expect(show("private, to read", map_alone(PROT_READ, MAP_PRIVATE)), "neither");
    void *reserved = map_alone(PROT_NONE, MAP_PRIVATE);
    expect(show("private, no access", reserved), "neither");
    must(mprotect(reserved, page_size, RW) == 0, "mprotect");
    expect(show("no access, then mprotect", reserved), "ac");
    expect(show("shared, to write", map_alone(RW, MAP_SHARED)), "neither");
    // ANCHOR_END: main

    if (mode() == 2) {
        fprintf(stderr, "vm.overcommit_memory = 2: MAP_NORESERVE is ignored here, and has ac\n");
        printf("private, MAP_NORESERVE       nr\n");
        return 0;
    }
    // ANCHOR: noreserve
    void *left_out = map_alone(RW, MAP_PRIVATE | MAP_NORESERVE);
    expect(show("private, MAP_NORESERVE", left_out), "nr");
    // ANCHOR_END: noreserve
}
