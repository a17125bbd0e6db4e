// After fork, Rss counts a page in full in each process that maps it. Pss divides the page among them.

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

enum { PAGES = 256 };

static size_t page_size;

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}

// Maps anonymous memory between two inaccessible pages, so that the kernel cannot merge it with another mapping.
static unsigned char *map_isolated(int flags)
{
    size_t len = PAGES * page_size;
    unsigned char *reserved = mmap(NULL, len + 2 * page_size, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(reserved != MAP_FAILED, "mmap");
    void *start = mmap(reserved + page_size, len, PROT_READ | PROT_WRITE,
                       flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    must(start != MAP_FAILED, "mmap");
    return start;
}

// Returns a field of /proc/self/smaps, which is in kB, as a number of pages.
static int smaps_pages(const unsigned char *address, const char *field)
{
    FILE *smaps = fopen("/proc/self/smaps", "r");
    must(smaps != NULL, "/proc/self/smaps");
    size_t length = strlen(field);
    unsigned long kilobytes = 0;
    bool inside = false, found = false;
    char text[8192];
    while (fgets(text, sizeof text, smaps) != NULL) {
        unsigned long start, end;
        if (sscanf(text, "%lx-%lx", &start, &end) == 2)
            inside = start <= (uintptr_t)address && (uintptr_t)address < end;
        if (inside && strncmp(text, field, length) == 0 && text[length] == ':')
            found = sscanf(text + length + 1, "%lu kB", &kilobytes) == 1;
    }
    must(fclose(smaps) == 0, "fclose");
    must(found && kilobytes * 1024 % page_size == 0, field);
    return (int)(kilobytes * 1024 / page_size);
}

static void show(const char *when, const unsigned char *start, const int expected[4])
{
    int rss = smaps_pages(start, "Rss");
    int pss = smaps_pages(start, "Pss");
    int shared = smaps_pages(start, "Shared_Dirty");
    int private = smaps_pages(start, "Private_Dirty");
    printf("%-30s %3d %4d %13d %14d\n", when, rss, pss, shared, private);
    assert(rss == expected[0] && pss == expected[1]);
    assert(shared == expected[2] && private == expected[3]);
}

static void write_pages(volatile unsigned char *start, size_t pages)
{
    for (size_t page = 0; page < pages; page++)
        start[page * page_size] = 1;
}

// Waits for a byte from the other process.
static void wait_for(int pipe)
{
    char byte;
    must(read(pipe, &byte, 1) == 1, "read");
}

// Flushes stdout, so that the lines appear in order, and sends a byte to the other process.
static void notify(int pipe)
{
    must(fflush(stdout) == 0, "fflush");
    must(write(pipe, "", 1) == 1, "write");
}

int main(void)
{
    long size = sysconf(_SC_PAGESIZE);
    must(size > 0, "sysconf");
    page_size = (size_t)size;
    // Without huge pages, every page is counted separately.
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    int to_child[2], to_parent[2];
    must(pipe(to_child) == 0 && pipe(to_parent) == 0, "pipe");
    printf("                               Rss  Pss  Shared_Dirty  Private_Dirty\n");

    // ANCHOR: main
    unsigned char *start = map_isolated(MAP_PRIVATE);
    write_pages(start, PAGES);
    show("parent, before the fork", start, (int[]){256, 256, 0, 256});
    must(fflush(stdout) == 0, "fflush");

    pid_t child = fork();
    must(child != -1, "fork");
    if (child == 0) {
        must(close(to_child[1]) == 0 && close(to_parent[0]) == 0, "close");
        show("child, after the fork", start, (int[]){256, 128, 256, 0});
        notify(to_parent[1]);
        wait_for(to_child[0]);
        write_pages(start, 64);
        show("child, after it wrote 64 pages", start, (int[]){256, 160, 192, 64});
        notify(to_parent[1]);
        wait_for(to_child[0]);
        _exit(0);
    }
    must(close(to_child[0]) == 0 && close(to_parent[1]) == 0, "close");
    wait_for(to_parent[0]);
    show("parent, after the fork", start, (int[]){256, 128, 256, 0});
    notify(to_child[1]);
    wait_for(to_parent[0]);
    show("parent, after those writes", start, (int[]){256, 160, 192, 64});
    // ANCHOR_END: main
    notify(to_child[1]);
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
