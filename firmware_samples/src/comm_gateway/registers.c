#include "registers.h"

#include "ess_dbc.h"
#include "release.h"

#define EXPIRY_MS 5000u

static uint16_t values[REGISTERS_MAX];
static uint32_t heard_ms[REGISTERS_MAX];
static uint16_t sensor_values[SENSOR_REGISTERS];

void registers_init(void)
{
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        values[i] = REGISTER_INVALID;
    }
    for (uint32_t i = 0; i < SENSOR_REGISTERS; i++) {
        sensor_values[i] = REGISTER_INVALID;
    }
}

/* The first entry with this identifier, or register_count. */
static uint32_t first_of(uint16_t id)
{
    uint32_t low = 0;
    uint32_t high = register_count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2u;
        if (register_map[middle].id < id) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

void registers_update(const struct can_frame *frame, uint32_t now_ms)
{
    const uint32_t first = first_of(frame->id);
    for (uint32_t i = first; i < register_count && i < REGISTERS_MAX && register_map[i].id == frame->id; i++) {
        const struct register_entry *entry = &register_map[i];
        const bool shown = entry->page == NO_PAGE ||
                           entry->page == (uint8_t)signal_get(frame->data, &BMS_CELLS_PAGE);
        if (!shown || entry->signal.start + entry->signal.length > 8u * frame->length) {
            continue;
        }
        const int32_t raw = signal_get(frame->data, &entry->signal);
        const bool invalid = entry->signal.has_invalid && raw == entry->signal.invalid;
        values[i] = invalid ? REGISTER_INVALID : (uint16_t)raw;
        heard_ms[i] = now_ms;
    }
}

bool registers_read(uint32_t number, uint32_t now_ms, uint16_t *value)
{
    if (number >= register_count) {
        const uint32_t sensor = number - register_count;
        *value = sensor < SENSOR_REGISTERS ? sensor_values[sensor] : REGISTER_INVALID;
        return sensor < SENSOR_REGISTERS;
    }
    *value = values[number];
#if REGISTERS_EXPIRE
    if (now_ms - heard_ms[number] > EXPIRY_MS) {
        *value = REGISTER_INVALID;
    }
#else
    (void)now_ms;
#endif
    return true;
}

void registers_set_sensor(uint32_t sensor, int16_t centi_degc)
{
    sensor_values[sensor] = (uint16_t)centi_degc;
}
