#include <stdint.h>
#include <stdlib.h>

/* Returns an image that is all white, or NULL. */
uint32_t *white_image(uint32_t width, uint32_t height)
{
    uint32_t *pixels = malloc(width * height * 4);
    if (pixels == NULL)
        return NULL;
    for (size_t number = 0; number < (size_t)width * height; number++)
        pixels[number] = 0xffffffff;
    return pixels;
}
