/* FDCAN1 as a classic CAN controller at 500 kbit/s on PD0 (receive) and PD1 (transmit). */
#ifndef FDCAN_H
#define FDCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FDCAN_FILTERS_MAX 64u

struct can_frame {
    uint16_t id;
    uint8_t length;
    uint8_t data[8];
};

/* Accepts data frames with these 11-bit identifiers and nothing else. */
void fdcan_init(const uint16_t *accepted, size_t count);

/* False if the transmit queue is full; the frame is then not sent. */
bool fdcan_send(const struct can_frame *frame);

/* False if nothing was received. */
bool fdcan_receive(struct can_frame *frame);

/* After bus-off: starts the controller's recovery (128 times 11 recessive bits). */
void fdcan_recover(void);

#endif
