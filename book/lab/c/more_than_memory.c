// mmap refuses a promise that all memory and swap could not keep, and adds no promises up: vm.overcommit_memory = 0.

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
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

static void *map(size_t len, int rights, int flags)
{
    return mmap(NULL, len, rights, flags | MAP_ANONYMOUS, -1, 0);
}

// Maps and unmaps: 0, or what errno says.
static int once(size_t len, int rights, int flags)
{
    void *start = map(len, rights, flags);
    if (start == MAP_FAILED)
        return errno;
    must(munmap(start, len) == 0, "munmap");
    return 0;
}

// Maps three times before anything is unmapped: 0, or what errno said last.
static int thrice(size_t len)
{
    void *starts[3];
    int error = 0;
    for (int number = 0; number < 3; number++) {
        starts[number] = map(len, RW, MAP_PRIVATE);
        if (starts[number] == MAP_FAILED)
            error = errno;
    }
    for (int number = 0; number < 3; number++)
        if (starts[number] != MAP_FAILED)
            must(munmap(starts[number], len) == 0, "munmap");
    return error;
}

// Maps without access, and asks for it afterwards.
static int widened(size_t len)
{
    void *start = map(len, PROT_NONE, MAP_PRIVATE);
    must(start != MAP_FAILED, "mmap");
    int error = mprotect(start, len, RW) == 0 ? 0 : errno;
    must(munmap(start, len) == 0, "munmap");
    return error;
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

// Nothing can be shown but in mode 0: elsewhere this says so, and prints what mode 0 does.
static void show(const char *what, int error, int expected)
{
    if (mode() != 0) {
        fprintf(stderr, "vm.overcommit_memory = %d: the line is that of mode 0\n", mode());
        error = expected;
    }
    printf("%-28s %s\n", what, error == 0 ? "Ok(())" : "Err(ENOMEM)");
    assert(error == expected);
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;

    // ANCHOR: main
    struct sysinfo known;
    must(sysinfo(&known) == 0, "sysinfo");
    size_t all = (known.totalram + known.totalswap) * known.mem_unit;
    size_t more = (all + all / 16) / page_size * page_size;
    size_t less = (all - all / 16) / page_size * page_size;

    printf("a sixteenth more than all memory and swap:\n");
    show("private, to write", once(more, RW, MAP_PRIVATE), ENOMEM);
    show("private, to read", once(more, PROT_READ, MAP_PRIVATE), 0);
    show("private, no access", once(more, PROT_NONE, MAP_PRIVATE), 0);
    show("no access, then mprotect", widened(more), ENOMEM);
    show("shared, to write", once(more, RW, MAP_SHARED), ENOMEM);
    show("shared, no access", once(more, PROT_NONE, MAP_SHARED), ENOMEM);
    show("private, MAP_NORESERVE", once(more, RW, MAP_PRIVATE | MAP_NORESERVE), 0);
    show("shared, MAP_NORESERVE", once(more, RW, MAP_SHARED | MAP_NORESERVE), 0);

    printf("a sixteenth less:\n");
    show("private, to write", once(less, RW, MAP_PRIVATE), 0);
    show("three at a time", thrice(less), 0);
    // ANCHOR_END: main
}
