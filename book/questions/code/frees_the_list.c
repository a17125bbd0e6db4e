#include <stdlib.h>

struct node {
    struct node *next;
    int value;
};

void free_list(struct node *first)
{
    for (struct node *node = first; node != NULL; node = node->next) {
        free(node);
    }
}
