// The parts of a process in the order of their addresses.

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct part {
    const char *name;
    uintptr_t address;
};

static int data = 1, zeroed;

static int by_address(const void *one, const void *other)
{
    uintptr_t a = ((const struct part *)one)->address, b = ((const struct part *)other)->address;
    return (a > b) - (a < b);
}

int main(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *mapping = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(mapping != MAP_FAILED);
    // ANCHOR: main
    int local;
    struct part parts[] = {
        {"stack", (uintptr_t)&local},
        {"mapping", (uintptr_t)mapping},
        {"heap", (uintptr_t)sbrk(0)},
        {"zeroed data", (uintptr_t)&zeroed},
        {"data", (uintptr_t)&data},
        {"code", (uintptr_t)main},
    };
    enum { COUNT = sizeof parts / sizeof *parts };
    qsort(parts, COUNT, sizeof *parts, by_address);
    // ANCHOR_END: main
    char names[128] = "";
    for (int number = 0; number < COUNT; number++) {
        strcat(names, number == 0 ? "" : ", ");
        strcat(names, parts[number].name);
    }
    printf("from low to high: %s\n", names);
    if (strncmp(names, "mapping", 7) == 0) {
        puts("this process has the legacy layout, as with an unlimited stack");
        return 77;
    }
    assert(strcmp(names, "code, data, zeroed data, heap, mapping, stack") == 0);
    return 0;
}
