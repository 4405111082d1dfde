/* The functions that the compiler may call for copies and fills; there is no C library. */
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    while (count-- > 0u) {
        *out++ = *in++;
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *out = to;
    while (count-- > 0u) {
        *out++ = (uint8_t)value;
    }
    return to;
}
