/* Communications gateway: hears the station's telemetry and offers it to the site controller as Modbus registers. */
#include <stdbool.h>
#include <stdint.h>

#include "e2e.h"
#include "ess_dbc.h"
#include "fdcan.h"
#include "modbus.h"
#include "node.h"
#include "registers.h"
#include "sensors.h"
#include "stm32h743.h"
#include "tick.h"
#include "watchdog.h"

#define RACKS (sizeof BMS_HV_STATUS / sizeof BMS_HV_STATUS[0])
#define SENSOR_CYCLE_MS 100u

static struct e2e_monitor monitors[RACKS + 1u];

/* Frames under E2E protection count only if it holds. */
static bool acceptable(const struct can_frame *frame)
{
    if (frame->id == PCS_STATUS[0].id) {
        return frame->length == PCS_STATUS[0].length &&
               e2e_check(&monitors[RACKS], frame->data, frame->length, PCS_STATUS[0].e2e_data_id);
    }
    for (uint32_t i = 0; i < RACKS; i++) {
        if (frame->id == BMS_HV_STATUS[i].id) {
            return frame->length == BMS_HV_STATUS[i].length &&
                   e2e_check(&monitors[i], frame->data, frame->length, BMS_HV_STATUS[i].e2e_data_id);
        }
    }
    return true;
}

static void listen(void)
{
    uint16_t accepted[FDCAN_FILTERS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < register_count && count < FDCAN_FILTERS_MAX; i++) {
        if (count == 0u || accepted[count - 1u] != register_map[i].id) {
            accepted[count++] = register_map[i].id;
        }
    }
    fdcan_init(accepted, count);
}

int main(void)
{
    watchdog_start();
    const struct handover handover = node_handover();
    registers_init();
    sensors_init();
    modbus_init();
    listen();
    tick_init();
    node_send_info(&NODE_INFO_COMM_GATEWAY[0], NODE_INFO_COMM_GATEWAY_NODE_TYPE_COMM_GATEWAY, &handover);

    uint32_t sensor = 0;
    for (;;) {
        const uint32_t now = tick_wait();
        modbus_step(now);
        struct can_frame frame;
        while (fdcan_receive(&frame)) {
            if (acceptable(&frame)) {
                registers_update(&frame, now);
            }
        }
        if (now % SENSOR_CYCLE_MS == 0u) {
            registers_set_sensor(sensor, sensors_read(sensor));
            sensor = (sensor + 1u) % SENSOR_REGISTERS;
        }
        if (now % NODE_INFO_COMM_GATEWAY[0].cycle_ms == 0u) {
            node_send_info(&NODE_INFO_COMM_GATEWAY[0], NODE_INFO_COMM_GATEWAY_NODE_TYPE_COMM_GATEWAY, &handover);
        }
        fdcan_recover();
        watchdog_reload();
    }
}
