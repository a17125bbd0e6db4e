// RLIMIT_AS limits all mappings. RLIMIT_DATA limits only private writable memory.

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { LIMIT = 32 << 20, LEN = 64 << 20, WRITE = PROT_READ | PROT_WRITE };

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

static const char *name(int error)
{
    switch (error) {
    case 0:
        return "Ok(())";
    case ENOMEM:
        return "Err(ENOMEM)";
    default:
        return "another error";
    }
}

// ANCHOR: main
// Maps twice what the limit allows. With `then_writable`, mprotect makes the mapping
// writable afterwards. Returns 0 or the error.
static int try_map(int limit, int prot, int flags, bool then_writable)
{
    struct rlimit saved;
    must(getrlimit(limit, &saved) == 0, "getrlimit");
    struct rlimit low = {LIMIT, saved.rlim_max};
    must(setrlimit(limit, &low) == 0, "setrlimit");
    void *start = mmap(NULL, LEN, prot, flags | MAP_ANONYMOUS, -1, 0);
    int result = start == MAP_FAILED ? errno : 0;
    if (then_writable && result == 0)
        result = mprotect(start, LEN, PROT_READ | PROT_WRITE) == 0 ? 0 : errno;
    must(setrlimit(limit, &saved) == 0, "setrlimit");
    if (start != MAP_FAILED)
        must(munmap(start, LEN) == 0, "munmap");
    return result;
}
// ANCHOR_END: main

struct row {
    const char *name;
    int prot;
    int flags;
    bool then_writable;
    bool is_data;
};

int main(void)
{
    static const struct row rows[] = {
        {"private, to write", WRITE, MAP_PRIVATE, false, true},
        {"private, to read", PROT_READ, MAP_PRIVATE, false, false},
        {"private, no access", PROT_NONE, MAP_PRIVATE, false, false},
        {"no access, then mprotect", PROT_NONE, MAP_PRIVATE, true, true},
        {"private, MAP_NORESERVE", WRITE, MAP_PRIVATE | MAP_NORESERVE, false, true},
        {"shared, to write", WRITE, MAP_SHARED, false, false},
    };
    printf("64 MiB, with a limit of   RLIMIT_AS    RLIMIT_DATA\n");
    for (size_t number = 0; number < sizeof rows / sizeof *rows; number++) {
        const struct row *row = &rows[number];
        int addresses = try_map(RLIMIT_AS, row->prot, row->flags, row->then_writable);
        int data = try_map(RLIMIT_DATA, row->prot, row->flags, row->then_writable);
        printf("%-25s %-12s %s\n", row->name, name(addresses), name(data));
        assert(addresses == ENOMEM);
        assert(data == (row->is_data ? ENOMEM : 0));
    }
}
