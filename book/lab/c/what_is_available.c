// MemAvailable is an estimate: free memory, and most of what can be reclaimed without swapping.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}
// Copies a file to stderr, if it exists.
static void print(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        fputs(line, stderr);
    must(file == NULL || fclose(file) == 0, "fclose");
}

// Returns whether lxcfs has replaced /proc/meminfo in a container by one with the container's limit.
static bool is_replaced(void)
{
    FILE *mounts = fopen("/proc/self/mounts", "r");
    must(mounts != NULL, "/proc/self/mounts");
    char line[4096];
    bool found = false;
    while (fgets(line, sizeof line, mounts) != NULL)
        found = found || strstr(line, " /proc/meminfo ") != NULL;
    must(fclose(mounts) == 0, "fclose");
    return found;
}

int main(void)
{
    if (is_replaced()) {
        printf("this container has a /proc/meminfo that is not the kernel's\n");
        return 77;
    }
    // ANCHOR: main
    FILE *meminfo = fopen("/proc/meminfo", "r");
    must(meminfo != NULL, "/proc/meminfo");
    char line[128];
    unsigned long free = 0, active = 0, inactive = 0, kernel = 0, available = 0;
    while (fgets(line, sizeof line, meminfo) != NULL) {
        sscanf(line, "MemFree: %lu kB", &free);
        sscanf(line, "Active(file): %lu kB", &active);
        sscanf(line, "Inactive(file): %lu kB", &inactive);
        sscanf(line, "KReclaimable: %lu kB", &kernel);
        sscanf(line, "MemAvailable: %lu kB", &available);
    }
    must(fclose(meminfo) == 0, "fclose");
    unsigned long files = active + inactive;
    // ANCHOR_END: main
    fprintf(stderr, "free %lu kB, pages of files %lu kB, reclaimable kernel memory %lu kB\n", free, files,
            kernel);
    fprintf(stderr, "available %lu kB\n", available);
    print("/proc/pressure/memory");
    bool less = available < free + files + kernel;
    printf("MemAvailable < MemFree + pages of files + reclaimable kernel memory: %s\n",
           less ? "true" : "false");
    assert(less);
}
