/* AUTOSAR E2E Profile 5: bytes 0-1 CRC (little-endian), byte 2 counter. */
#ifndef E2E_H
#define E2E_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes counter and CRC into the payload and advances the counter. */
void e2e_protect(uint8_t *payload, size_t length, uint16_t data_id, uint8_t *counter);

struct e2e_monitor {
    bool synchronised;
    uint8_t last;
};

/* True if the CRC holds and the counter is the successor of the last one, or the first. */
bool e2e_check(struct e2e_monitor *monitor, const uint8_t *payload, size_t length, uint16_t data_id);

#endif
