#include <arpa/inet.h>
#include <stdint.h>

/* A packet begins with a type of one byte and a length of four, in network byte order. */
uint32_t length(const unsigned char *packet)
{
    uint32_t number = *(const uint32_t *)(packet + 1);
    return ntohl(number);
}
