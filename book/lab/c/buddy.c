// A model of the buddy allocator: blocks are split in halves, and free halves are joined again.

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>

// The largest block has 2^3 pages.
enum { LARGEST = 3, PAGES = 1 << LARGEST };

// ANCHOR: main
// For each order: does a free block of 2^order pages begin at this page?
static bool is_free[LARGEST + 1][PAGES];

// Returns the first page of a free block, or -1.
static int find(int order)
{
    for (int page = 0; page < PAGES; page++)
        if (is_free[order][page])
            return page;
    return -1;
}

// Returns the first page, or -1.
static int allocate_block(int order)
{
    int found = order;
    while (found <= LARGEST && find(found) == -1)
        found++;
    if (found > LARGEST)
        return -1;
    int block = find(found);
    is_free[found][block] = false;
    while (found-- > order)
        is_free[found][block + (1 << found)] = true; // the upper half stays free
    return block;
}

static void free_block(int block, int order)
{
    // The buddy's number differs in one bit. If the buddy is free, join the two.
    while (order < LARGEST && is_free[order][block ^ (1 << order)]) {
        is_free[order][block ^ (1 << order)] = false;
        block &= ~(1 << order);
        order++;
    }
    is_free[order][block] = true;
}
// ANCHOR_END: main

static void show(const char *name, int one, int two, int four, int eight)
{
    int counts[LARGEST + 1] = {0};
    for (int order = 0; order <= LARGEST; order++)
        for (int page = 0; page < PAGES; page++)
            counts[order] += is_free[order][page];
    printf("%-28s %d  %d  %d  %d\n", name, counts[0], counts[1], counts[2], counts[3]);
    assert(counts[0] == one && counts[1] == two && counts[2] == four && counts[3] == eight);
}

int main(void)
{
    free_block(0, LARGEST);
    printf("free blocks of               1  2  4  8 pages\n");
    show("at first", 0, 0, 0, 1);
    // ANCHOR: steps
    int page = allocate_block(0);
    show("one page allocated", 1, 1, 1, 0);
    free_block(page, 0);
    show("the page freed", 0, 0, 0, 1);
    int pages[PAGES];
    for (int number = 0; number < PAGES; number++)
        pages[number] = allocate_block(0);
    for (int number = 0; number < PAGES; number += 2)
        free_block(pages[number], 0);
    show("every second page in use", 4, 0, 0, 0);
    int two_pages = allocate_block(1);
    // ANCHOR_END: steps
    printf("two pages allocated:         %s\n", two_pages == -1 ? "None" : "a block");
    assert(two_pages == -1);
}
