#include "e2e.h"

#define CRC_BYTES 2u

/* CRC-16 CCITT-FALSE (polynomial 0x1021, start 0xFFFF, not reflected), four bits at a time. */
static const uint16_t crc_table[16] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
    0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF,
};

static uint16_t crc_byte(uint16_t crc, uint8_t byte)
{
    crc = (uint16_t)((uint32_t)crc << 4) ^ crc_table[(crc >> 12) ^ (byte >> 4)];
    return (uint16_t)((uint32_t)crc << 4) ^ crc_table[(crc >> 12) ^ (byte & 0x0Fu)];
}

static uint16_t crc_of(const uint8_t *payload, size_t length, uint16_t data_id)
{
    uint16_t crc = 0xFFFF;
    for (size_t i = CRC_BYTES; i < length; i++) {
        crc = crc_byte(crc, payload[i]);
    }
    crc = crc_byte(crc, (uint8_t)data_id);
    return crc_byte(crc, (uint8_t)(data_id >> 8));
}

void e2e_protect(uint8_t *payload, size_t length, uint16_t data_id, uint8_t *counter)
{
    payload[CRC_BYTES] = (*counter)++;
    const uint16_t crc = crc_of(payload, length, data_id);
    payload[0] = (uint8_t)crc;
    payload[1] = (uint8_t)(crc >> 8);
}

bool e2e_check(struct e2e_monitor *monitor, const uint8_t *payload, size_t length, uint16_t data_id)
{
    const uint16_t crc = crc_of(payload, length, data_id);
    if (payload[0] != (uint8_t)crc || payload[1] != (uint8_t)(crc >> 8)) {
        return false;
    }
    const uint8_t counter = payload[CRC_BYTES];
    const bool in_sequence = !monitor->synchronised || (uint8_t)(counter - monitor->last) == 1u;
    monitor->synchronised = true;
    monitor->last = counter;
    return in_sequence;
}
