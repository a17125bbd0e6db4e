// /proc/buddyinfo counts the free blocks of each order. Together they are all free pages.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ORDERS = 64 };

// Exits with an error message if a call has failed.
static void must(bool succeeded, const char *call)
{
    if (!succeeded) {
        perror(call);
        exit(EXIT_FAILURE);
    }
}
// ANCHOR: main
// Counts the free blocks of each order that the machine has.
static void free_blocks(size_t blocks[ORDERS])
{
    for (size_t order = 0; order < ORDERS; order++)
        blocks[order] = 0;
    FILE *zones = fopen("/proc/buddyinfo", "r");
    must(zones != NULL, "/proc/buddyinfo");
    // Node 0, zone   Normal    732    500    321 ...
    while (fscanf(zones, "Node %*u, zone %*s ") != EOF) {
        size_t count;
        for (size_t order = 0; order < ORDERS; order++) {
            if (fscanf(zones, "%zu ", &count) != 1)
                break; // the next zone
            blocks[order] += count;
        }
    }
    must(fclose(zones) == 0, "fclose");
}
// ANCHOR_END: main

// Returns the kernel's count of free pages. MemFree can also have memory that the kernel has not initialised yet.
static size_t free_pages(void)
{
    FILE *vmstat = fopen("/proc/vmstat", "r");
    must(vmstat != NULL, "/proc/vmstat");
    char line[128];
    size_t pages = 0;
    while (fgets(line, sizeof line, vmstat) != NULL)
        if (sscanf(line, "nr_free_pages %zu", &pages) == 1)
            break;
    must(fclose(vmstat) == 0, "fclose");
    return pages;
}

int main(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    size_t blocks[ORDERS];
    bool equal = false;
    // Other processes allocate and free between the two files. So try again, and allow for 2 %.
    for (int attempt = 0; attempt < 100 && !equal; attempt++) {
        size_t before = free_pages();
        free_blocks(blocks);
        size_t sum = 0;
        for (size_t order = 0; order < ORDERS; order++)
            sum += blocks[order] << order;
        equal = (sum > before ? sum - before : before - sum) <= before / 50;
    }
    size_t orders = ORDERS;
    while (orders > 0 && blocks[orders - 1] == 0)
        orders--;
    for (size_t order = 0; order < orders; order++)
        fprintf(stderr, "order %2zu: %6zu free blocks of %zu KiB\n", order, blocks[order],
                (page_size << order) / 1024);
    printf("the free blocks of all orders add up to nr_free_pages: %s\n", equal ? "true" : "false");
    assert(equal);
}
