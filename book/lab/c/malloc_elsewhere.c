// malloc also takes its heap from mmap: for another thread's arena, and for all threads if the break cannot move.

#include <assert.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Allocates a block. The volatile variable keeps the compiler from removing the call.
static void *allocate(size_t len)
{
    void *volatile got = malloc(len);
    assert(got != NULL);
    return got;
}

static void *thread_main(void *len)
{
    return allocate(*(size_t *)len);
}

// Returns the path in the line of /proc/self/maps that contains `address`.
static const char *path(const void *address, char *line, int size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    assert(maps != NULL);
    while (fgets(line, size, maps) != NULL) {
        uintptr_t start, end;
        int name = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &start, &end, &name) >= 2 &&
            (uintptr_t)address >= start && (uintptr_t)address < end) {
            fclose(maps);
            line[strcspn(line, "\n")] = '\0';
            return line + name;
        }
    }
    assert(!"the address is mapped");
    return NULL;
}

int main(void)
{
    size_t kib = 1024;
    size_t own_before = mallinfo2().hblks;
    // ANCHOR: main
    void *first = allocate(kib);
    pthread_t thread;
    void *second;
    int error = pthread_create(&thread, NULL, thread_main, &kib);
    assert(error == 0);
    error = pthread_join(thread, &second);
    assert(error == 0);

    // An inaccessible page directly after the heap keeps the break from moving.
    long page = sysconf(_SC_PAGESIZE);
    assert(page > 0);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    void *end = sbrk(0);
    void *guard = mmap(end, (size_t)page, PROT_NONE, flags, -1, 0);
    assert(guard == end);
    void *blocks[64];
    for (int i = 0; i < 64; i++)
        blocks[i] = allocate(100 * kib);
    // ANCHOR_END: main
    size_t own = mallinfo2().hblks - own_before;
    assert(sbrk(0) == end);

    int beyond = 0;
    for (int i = 0; i < 64; i++)
        beyond += (uintptr_t)blocks[i] > (uintptr_t)end;
    char lines[3][512];
    const char *first_path = path(first, lines[0], sizeof lines[0]);
    const char *second_path = path(second, lines[1], sizeof lines[1]);
    const char *last_path = path(blocks[63], lines[2], sizeof lines[2]);
    printf("first thread:  \"%s\"\n", first_path);
    printf("second thread: \"%s\"\n", second_path);
    printf("break blocked: \"%s\", and %zu separate mappings\n", last_path, own);
    assert(strcmp(first_path, "[heap]") == 0 && strcmp(second_path, "") == 0);
    assert(strcmp(last_path, "") == 0 && beyond > 0 && own == 0);
    return 0;
}
