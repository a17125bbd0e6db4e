// Padding: each member of a struct begins at a multiple of its alignment, and so does the next struct in an array.

#include <assert.h>
#include <stdalign.h>
#include <stdio.h>

// ANCHOR: main
struct mixed {
    char first;
    double number;
    char last;
};

struct sorted {
    double number;
    char first;
    char last;
};
// ANCHOR_END: main

int main(void)
{
    if (alignof(struct mixed) != 8) {
        puts("a double is not aligned to 8 bytes on this processor");
        return 77;
    }
    printf("char, double, char: %zu bytes\n", sizeof(struct mixed));
    printf("double, char, char: %zu bytes\n", sizeof(struct sorted));
    assert(sizeof(struct mixed) == 24 && sizeof(struct sorted) == 16);
    return 0;
}
