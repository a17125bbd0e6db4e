#include <stdint.h>

#define STATUS 0x40001000u
#define READY 0x1u

void wait_until_ready(void)
{
    uint32_t *status = (uint32_t *)STATUS;
    while ((*status & READY) == 0) {
    }
}
