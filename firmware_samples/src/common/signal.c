#include "signal.h"

void signal_put(uint8_t *payload, const struct can_signal *signal, int32_t raw)
{
    for (uint32_t i = 0; i < signal->length; i++) {
        const uint32_t bit = signal->start + i;
        const uint8_t mask = (uint8_t)(1u << (bit & 7u));
        if ((((uint32_t)raw >> i) & 1u) != 0u) {
            payload[bit >> 3] |= mask;
        } else {
            payload[bit >> 3] &= (uint8_t)~mask;
        }
    }
}

void signal_put_milli(uint8_t *payload, const struct can_signal *signal, int32_t milli)
{
    const int32_t scaled = (milli - signal->offset_milli) * signal->scale_den;
    const int32_t divisor = signal->scale_num * 1000;
    const int32_t half = scaled < 0 ? -(divisor / 2) : divisor / 2;
    int32_t raw = (scaled + half) / divisor;
    if (raw < signal->raw_min) {
        raw = signal->raw_min;
    }
    if (raw > signal->raw_max) {
        raw = signal->raw_max;
    }
    signal_put(payload, signal, raw);
}

void signal_put_invalid(uint8_t *payload, const struct can_signal *signal)
{
    signal_put(payload, signal, signal->invalid);
}

int32_t signal_get(const uint8_t *payload, const struct can_signal *signal)
{
    uint32_t raw = 0;
    for (uint32_t i = 0; i < signal->length; i++) {
        const uint32_t bit = signal->start + i;
        raw |= (uint32_t)((payload[bit >> 3] >> (bit & 7u)) & 1u) << i;
    }
    if (signal->is_signed && signal->length < 32u && ((raw >> (signal->length - 1u)) & 1u) != 0u) {
        raw |= ~0u << signal->length;
    }
    return (int32_t)raw;
}
