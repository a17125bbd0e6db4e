#include <string.h>

/* Inserts a number before items[place]. There is room for count + 1 items. */
void insert(int *items, size_t count, size_t place, int number)
{
    memcpy(items + place + 1, items + place, (count - place) * sizeof *items);
    items[place] = number;
}
