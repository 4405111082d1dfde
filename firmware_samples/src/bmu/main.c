/* Battery management unit of a rack: measures cells, judges high voltage, and tells the station bus. */
#include <stdbool.h>
#include <stdint.h>

#include "adc.h"
#include "cells.h"
#include "contactors.h"
#include "e2e.h"
#include "ess_dbc.h"
#include "fdcan.h"
#include "node.h"
#include "stm32h743.h"
#include "tick.h"
#include "watchdog.h"

/* Straps PG8, PG9, PG14: number of the rack less one, lowest bit first.
   PG10 emergency stop, PG11 fire, PG12 HVIL, PG13 insulation: high is good. */
#define FIRST_INPUT 8u
#define LAST_INPUT 14u
#define INPUT(pin) (((GPIO_IDR(GPIOG_BASE) >> (pin)) & 1u) != 0u)

#define OVERVOLTAGE_MV 3650
#define UNDERVOLTAGE_MV 2500
#define OVERTEMPERATURE_MDEGC 55000
#define UNDERTEMPERATURE_MDEGC (-10000)
#define OVERCURRENT_MA 320000
#define CELL_PAGES 5u

struct measurement {
    struct hv_inputs hv;
    bool aux_valid;
    int32_t aux_mv;
    struct cell_extremes cells;
};

static uint32_t rack; /* from 0 */
static struct handover handover;
static struct e2e_monitor command_monitor;

static void put_milli_or_invalid(struct can_frame *frame, const struct can_signal *signal, bool valid, int32_t milli)
{
    if (valid) {
        signal_put_milli(frame->data, signal, milli);
    } else {
        signal_put_invalid(frame->data, signal);
    }
}

static struct can_frame frame_for(const struct can_message *message)
{
    return (struct can_frame){.id = message->id, .length = message->length};
}

static void send_hv_status(const struct measurement *m, const struct hv_status *hv)
{
    static uint8_t counter;
    const struct can_message *message = &BMS_HV_STATUS[rack];
    struct can_frame frame = frame_for(message);
    signal_put(frame.data, &BMS_HV_STATUS_MAIN_PLUS, hv->main_plus);
    signal_put(frame.data, &BMS_HV_STATUS_MAIN_MINUS, hv->main_minus);
    signal_put(frame.data, &BMS_HV_STATUS_PRECHARGE, hv->precharge);
    signal_put(frame.data, &BMS_HV_STATUS_HVIL_CLOSED, m->hv.hvil_closed);
    signal_put(frame.data, &BMS_HV_STATUS_WELD_PLUS, hv->weld_plus);
    signal_put(frame.data, &BMS_HV_STATUS_WELD_MINUS, hv->weld_minus);
    signal_put(frame.data, &BMS_HV_STATUS_HV_OFF, hv->off);
    signal_put(frame.data, &BMS_HV_STATUS_EMERGENCY_STOP, m->hv.stop);
    put_milli_or_invalid(&frame, &BMS_HV_STATUS_LINK_VOLTAGE, m->hv.link_valid, m->hv.link_mv);
    put_milli_or_invalid(&frame, &BMS_HV_STATUS_CURRENT, m->hv.current_valid, m->hv.current_ma);
    e2e_protect(frame.data, frame.length, message->e2e_data_id, &counter);
    (void)fdcan_send(&frame);
}

static void send_hv_notice(int32_t token, const struct hv_status *hv)
{
    static uint8_t counter;
    const struct can_message *message = &BMS_HV_NOTICE[rack];
    struct can_frame frame = frame_for(message);
    int32_t condition = BMS_HV_NOTICE_CONDITION_NOT_DISCONNECTED;
    if (hv->weld_plus || hv->weld_minus) {
        condition = BMS_HV_NOTICE_CONDITION_WELDED;
    } else if (hv->off) {
        condition = BMS_HV_NOTICE_CONDITION_DISCONNECTED;
    }
    signal_put(frame.data, &BMS_HV_NOTICE_TOKEN, token);
    signal_put(frame.data, &BMS_HV_NOTICE_CONDITION, condition);
    signal_put_milli(frame.data, &BMS_HV_NOTICE_OFF_DURATION, (int32_t)hv->off_ms);
    e2e_protect(frame.data, frame.length, message->e2e_data_id, &counter);
    (void)fdcan_send(&frame);
}

static void send_state(const struct measurement *m, const struct hv_status *hv)
{
    struct can_frame frame = frame_for(&BMS_STATE[rack]);
    int32_t soc = 0;
    const bool soc_valid = cells_soc_milli_percent(&soc);
    signal_put(frame.data, &BMS_STATE_STATE, hv->state);
    put_milli_or_invalid(&frame, &BMS_STATE_SOC, soc_valid, soc);
    put_milli_or_invalid(&frame, &BMS_STATE_STRING_VOLTAGE, m->hv.string_valid, m->hv.string_mv);
    put_milli_or_invalid(&frame, &BMS_STATE_AUX_VOLTAGE, m->aux_valid, m->aux_mv);
    (void)fdcan_send(&frame);
}

/* Page 0: the extremes.  Pages 1 to 4: cells 1 to 12, three a page, laid out alike. */
static void send_cells(const struct measurement *m)
{
    static uint32_t page;
    struct can_frame frame = frame_for(&BMS_CELLS[rack]);
    signal_put(frame.data, &BMS_CELLS_PAGE, (int32_t)page);
    if (page == 0u) {
        const struct cell_extremes *x = &m->cells;
        put_milli_or_invalid(&frame, &BMS_CELLS_CELL_VOLTAGE_MIN, x->valid, x->voltage_min_mv);
        put_milli_or_invalid(&frame, &BMS_CELLS_CELL_VOLTAGE_MAX, x->valid, x->voltage_max_mv);
        put_milli_or_invalid(&frame, &BMS_CELLS_CELL_TEMPERATURE_MIN, x->valid, x->temperature_min_mdegc);
        put_milli_or_invalid(&frame, &BMS_CELLS_CELL_TEMPERATURE_MAX, x->valid, x->temperature_max_mdegc);
    } else {
        const struct can_signal *const signals[3] = {
            &BMS_CELLS_CELL_VOLTAGE_A_1,
            &BMS_CELLS_CELL_VOLTAGE_B_1,
            &BMS_CELLS_CELL_VOLTAGE_C_1,
        };
        for (uint32_t i = 0; i < 3u; i++) {
            int32_t voltage_mv = 0;
            const bool valid = cells_voltage_mv(3u * (page - 1u) + i, &voltage_mv);
            put_milli_or_invalid(&frame, signals[i], valid, voltage_mv);
        }
    }
    page = (page + 1u) % CELL_PAGES;
    (void)fdcan_send(&frame);
}

static void send_alarms(const struct measurement *m, const struct hv_status *hv)
{
    struct can_frame frame = frame_for(&BMS_ALARMS[rack]);
    const struct cell_extremes *x = &m->cells;
    signal_put(frame.data, &BMS_ALARMS_OVERVOLTAGE, x->valid && x->voltage_max_mv > OVERVOLTAGE_MV);
    signal_put(frame.data, &BMS_ALARMS_UNDERVOLTAGE, x->valid && x->voltage_min_mv < UNDERVOLTAGE_MV);
    signal_put(frame.data, &BMS_ALARMS_OVERTEMPERATURE, x->valid && x->temperature_max_mdegc > OVERTEMPERATURE_MDEGC);
    signal_put(frame.data, &BMS_ALARMS_UNDERTEMPERATURE, x->valid && x->temperature_min_mdegc < UNDERTEMPERATURE_MDEGC);
    signal_put(frame.data, &BMS_ALARMS_OVERCURRENT,
               m->hv.current_ma > OVERCURRENT_MA || m->hv.current_ma < -OVERCURRENT_MA);
    signal_put(frame.data, &BMS_ALARMS_INSULATION, !INPUT(13u));
    signal_put(frame.data, &BMS_ALARMS_HVIL_OPEN, !m->hv.hvil_closed);
    signal_put(frame.data, &BMS_ALARMS_EMERGENCY_STOP, !INPUT(10u));
    signal_put(frame.data, &BMS_ALARMS_FIRE, !INPUT(11u));
    signal_put(frame.data, &BMS_ALARMS_WELD, hv->weld_plus || hv->weld_minus);
    signal_put(frame.data, &BMS_ALARMS_PRECHARGE_FAILED, hv->precharge_failed);
    signal_put(frame.data, &BMS_ALARMS_INTERNAL_FAULT, !m->hv.current_valid || !m->hv.link_valid || !m->aux_valid);
    (void)fdcan_send(&frame);
}

static void receive_all(void)
{
    struct can_frame frame;
    while (fdcan_receive(&frame)) {
        const struct hv_status hv = contactors_status();
        if (frame.id == EMS_PCS_COMMAND[0].id && frame.length == EMS_PCS_COMMAND[0].length) {
            if (e2e_check(&command_monitor, frame.data, frame.length, EMS_PCS_COMMAND[0].e2e_data_id)) {
                contactors_order(signal_get(frame.data, &EMS_PCS_COMMAND_COMMAND));
            }
        } else if (frame.id == EMS_HV_STATUS_POLL[0].id && frame.length == EMS_HV_STATUS_POLL[0].length) {
            send_hv_notice(signal_get(frame.data, &EMS_HV_STATUS_POLL_TOKEN), &hv);
        }
    }
}

static void measure(struct measurement *m)
{
    m->hv.current_valid = adc_read_current_ma(&m->hv.current_ma);
    m->hv.link_valid = adc_read_link_mv(&m->hv.link_mv);
    m->aux_valid = adc_read_aux_mv(&m->aux_mv);
    m->hv.stop = !INPUT(10u) || !INPUT(11u);
    m->hv.hvil_closed = INPUT(12u);
    cells_step(m->hv.current_ma);
}

static bool due(uint32_t now, const struct can_message *message)
{
    return now % message->cycle_ms == 0u;
}

static void inputs_init(void)
{
    for (uint32_t pin = FIRST_INPUT; pin <= LAST_INPUT; pin++) {
        gpio_mode(GPIOG_BASE, pin, GPIO_MODE_INPUT); /* they are analogue after reset and would read low */
    }
}

static uint32_t strapped_rack(void)
{
    return (INPUT(8) ? 1u : 0u) | (INPUT(9) ? 2u : 0u) | (INPUT(14) ? 4u : 0u);
}

int main(void)
{
    watchdog_start();
    handover = node_handover();
    contactors_init();
    inputs_init();
    adc_init();
    cells_init();
    rack = strapped_rack();
    const uint16_t accepted[] = {EMS_PCS_COMMAND[0].id, EMS_HV_STATUS_POLL[0].id};
    fdcan_init(accepted, sizeof accepted / sizeof accepted[0]);
    tick_init();
    node_send_info(&NODE_INFO_BMU[rack], NODE_INFO_BMU_NODE_TYPE_BMU, &handover);

    struct measurement m = {0};
    for (;;) {
        const uint32_t now = tick_wait();
        measure(&m);
        if (due(now, &BMS_HV_STATUS[rack])) {
            m.cells = cells_extremes();
            m.hv.string_valid = m.cells.valid;
            m.hv.string_mv = m.cells.string_mv;
        }
        contactors_step(&m.hv);
        receive_all();
        const struct hv_status hv = contactors_status();
        if (due(now, &BMS_HV_STATUS[rack])) {
            send_hv_status(&m, &hv);
        }
        if (due(now, &BMS_CELLS[rack])) {
            send_cells(&m);
        }
        if (due(now, &BMS_ALARMS[rack])) {
            send_alarms(&m, &hv);
        }
        if (due(now, &BMS_STATE[rack])) {
            send_state(&m, &hv);
        }
        if (due(now, &NODE_INFO_BMU[rack])) {
            node_send_info(&NODE_INFO_BMU[rack], NODE_INFO_BMU_NODE_TYPE_BMU, &handover);
        }
        fdcan_recover();
        watchdog_reload(); /* reached once a millisecond, or the node restarts */
    }
}
