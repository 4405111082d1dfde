/* The rack's high-voltage part: contactors, precharge, and the judgement whether high voltage is off. */
#ifndef CONTACTORS_H
#define CONTACTORS_H

#include <stdbool.h>
#include <stdint.h>

struct hv_inputs {
    bool link_valid;
    bool current_valid;
    bool string_valid;
    int32_t link_mv;
    int32_t current_ma;
    int32_t string_mv;
    bool stop; /* emergency stop or fire */
    bool hvil_closed;
};

struct hv_status {
    uint8_t state;      /* RackState */
    uint8_t main_plus;  /* ContactorState */
    uint8_t main_minus; /* ContactorState */
    uint8_t precharge;  /* ContactorState */
    bool weld_plus;
    bool weld_minus;
    bool precharge_failed;
    bool off;
    uint32_t off_ms;
};

void contactors_init(void);

/* An order of the EMS: the raw value of EMS_PcsCommand's signal Command. */
void contactors_order(int32_t command);

/* Once a millisecond. */
void contactors_step(const struct hv_inputs *in);

struct hv_status contactors_status(void);

#endif
