/* Messages and signals as the DBC describes them; the tables are in the generated ess_dbc.h. */
#ifndef SIGNAL_H
#define SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

struct can_message {
    uint16_t id;
    uint8_t length;
    bool e2e;
    uint16_t e2e_data_id;
    uint16_t cycle_ms;
};

/* A little-endian signal.  physical = raw * scale_num / scale_den + offset; offset in thousandths. */
struct can_signal {
    uint8_t start;
    uint8_t length;
    bool is_signed;
    bool has_invalid;
    int32_t raw_min;
    int32_t raw_max;
    int32_t invalid;
    int32_t scale_num;
    int32_t scale_den;
    int32_t offset_milli;
};

void signal_put(uint8_t *payload, const struct can_signal *signal, int32_t raw);

/* Puts a value given in thousandths of the signal's unit, rounded and held to the signal's range. */
void signal_put_milli(uint8_t *payload, const struct can_signal *signal, int32_t milli);

/* Puts the raw value that the DBC calls Invalid. */
void signal_put_invalid(uint8_t *payload, const struct can_signal *signal);

int32_t signal_get(const uint8_t *payload, const struct can_signal *signal);

#endif
