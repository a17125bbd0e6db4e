#include <ctype.h>
#include <stdio.h>

void print_capitalised(void)
{
    char *name = "linux";
    name[0] = (char)toupper((unsigned char)name[0]);
    puts(name);
}
