// Measures what private and shared anonymous memory have in common, and how they differ.

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// What is measured for one kind of memory.
struct found {
    int first, inode, after_child;
    char permissions[8], path[64];
    long after_read, after_write, anonymous;
};

static size_t page;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Maps one page between two inaccessible pages, so that it has its own line in the maps. The descriptor is not open.
static char *map_isolated(int kind)
{
    char *reserved = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(reserved != MAP_FAILED, "mmap");
    char *start = mmap(reserved + page, page, PROT_READ | PROT_WRITE,
                       kind | MAP_ANONYMOUS | MAP_FIXED, 12345, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Returns a field of /proc/self/smaps for the mapping at `start`, as a number of pages. If `line` is not NULL, stores the
// fields of the mapping's first line there.
static long pages(const volatile char *start, const char *field, struct found *line)
{
    char text[8192];
    long kib = -1;
    int at_start = 0;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    must(smaps != NULL, "/proc/self/smaps");
    while (fgets(text, sizeof text, smaps)) {
        unsigned long first, end, inode;
        char permissions[8], path[64] = "";
        if (sscanf(text, "%lx-%lx %7s %*x %*x:%*x %lu %63[^\n]", &first, &end, permissions, &inode,
                   path) >= 4) {
            at_start = first == (uintptr_t)start;
            if (at_start && line) {
                memcpy(line->permissions, permissions, sizeof permissions);
                memcpy(line->path, path, sizeof path);
                line->inode = inode != 0;
            }
        } else if (at_start && strncmp(text, field, strlen(field)) == 0 && text[strlen(field)] == ':') {
            kib = atol(text + strlen(field) + 1);
        }
    }
    must(fclose(smaps) == 0, "/proc/self/smaps");
    must(kib >= 0, field);
    return kib * 1024 / (long)page;
}

static struct found measure(int kind)
{
    struct found found;
    // ANCHOR: main
    volatile char *byte = map_isolated(kind);
    found.first = *byte;
    found.after_read = pages(byte, "Rss", &found);
    *byte = 1;
    found.after_write = pages(byte, "Rss", NULL);
    found.anonymous = pages(byte, "Anonymous", NULL);
    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        *byte = 2;
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    found.after_child = *byte;
    // ANCHOR_END: main
    return found;
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "PR_SET_THP_DISABLE");
    struct found private = measure(MAP_PRIVATE), shared = measure(MAP_SHARED);
    printf("%-28s%-9sshared\n", "", "private");
    printf("%-28s%-9d%d\n", "first byte", private.first, shared.first);
    printf("%-28s%-9s%s\n", "permissions in maps", private.permissions, shared.permissions);
    printf("%-28s\"%s\"%7s\"%s\"\n", "path in maps", private.path, "", shared.path);
    printf("%-28s%-9s%s\n", "a file's inode in maps", private.inode ? "yes" : "no",
           shared.inode ? "yes" : "no");
    printf("%-28s%-9ld%ld\n", "Rss after a read, pages", private.after_read, shared.after_read);
    printf("%-28s%-9ld%ld\n", "Rss after a write, pages", private.after_write, shared.after_write);
    printf("%-28s%-9ld%ld\n", "Anonymous in smaps, pages", private.anonymous, shared.anonymous);
    printf("%-28s%-9d%d\n", "after the child wrote 2", private.after_child, shared.after_child);
    assert(private.first == 0 && shared.first == 0);
    assert(strcmp(private.path, "") == 0 && strcmp(shared.path, "/dev/zero (deleted)") == 0);
    assert(!private.inode && shared.inode);
    assert(private.after_read == 0 && shared.after_read == 1);
    assert(private.after_write == 1 && shared.after_write == 1);
    assert(private.anonymous == 1 && shared.anonymous == 0);
    assert(private.after_child == 1 && shared.after_child == 2);
    return 0;
}
