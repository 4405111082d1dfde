/* What every node tells of itself (message Node_Info), and what the bootloader left for it. */
#ifndef NODE_H
#define NODE_H

#include <stdint.h>

#include "signal.h"

/* Left by the bootloader in the last 32 bytes of the DTCM. */
struct handover {
    uint32_t magic;
    uint32_t boot_counter;
    uint8_t bank;
    uint8_t image_state; /* as in the DBC: 0 confirmed, 1 trial, 2 recovery */
    uint8_t hardware_id;
    uint8_t reserved;
};

#define HANDOVER_MAGIC 0x45535331u /* "ESS1" */

/* Without a valid hand-over the image counts as on trial: nobody has said that it is confirmed. */
struct handover node_handover(void);

/* Sends Node_Info. */
void node_send_info(const struct can_message *message, uint32_t node_type, const struct handover *handover);

#endif
