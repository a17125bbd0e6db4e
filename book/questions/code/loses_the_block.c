#include <stdlib.h>

struct numbers {
    int *items;
    size_t count, room;
};

/* Returns 0, or -1 if there is no memory. */
int append(struct numbers *numbers, int number)
{
    if (numbers->count == numbers->room) {
        size_t room = numbers->room == 0 ? 16 : 2 * numbers->room;
        numbers->items = realloc(numbers->items, room * sizeof *numbers->items);
        if (numbers->items == NULL)
            return -1;
        numbers->room = room;
    }
    numbers->items[numbers->count++] = number;
    return 0;
}
