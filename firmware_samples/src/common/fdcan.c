#include "fdcan.h"

#include "stm32h743.h"

/* Our part of the message RAM; offsets in bytes.  A filter is 1 word, an element 2 words and 8 data bytes. */
#define FILTER_OFFSET 0u
#define RX_OFFSET (FILTER_OFFSET + 4u * FDCAN_FILTERS_MAX)
#define RX_ELEMENTS 64u
#define ELEMENT_BYTES 16u
#define TX_OFFSET (RX_OFFSET + ELEMENT_BYTES * RX_ELEMENTS)
#define TX_ELEMENTS 32u
#define RAM_END (TX_OFFSET + ELEMENT_BYTES * TX_ELEMENTS)

/* Standard filter element: classic filter, store in FIFO 0. */
#define FILTER_CLASSIC_TO_FIFO0 ((2u << 30) | (1u << 27))
#define FILTER_EXACT 0x7FFu

/* 16 MHz HSE / 1, 32 quanta a bit: 1 + 27 + 4, sample point 87.5 %, jump width 4. */
#define BIT_TIMING_500K ((3u << 25) | (0u << 16) | (26u << 8) | 3u)

#define SPIN_LIMIT 100000u

static volatile uint32_t *ram(uint32_t offset)
{
    return (volatile uint32_t *)(SRAMCAN_BASE + offset);
}

static void wait_init(uint32_t wanted)
{
    for (uint32_t i = 0; i < SPIN_LIMIT && (FDCAN1_CCCR & FDCAN_CCCR_INIT) != wanted; i++) {
    }
}

void fdcan_init(const uint16_t *accepted, size_t count)
{
    RCC_CR |= RCC_CR_HSEON;
    for (uint32_t i = 0; i < SPIN_LIMIT && (RCC_CR & RCC_CR_HSERDY) == 0u; i++) {
    }
    RCC_APB1HENR |= RCC_APB1HENR_FDCAN;
    RCC_AHB4ENR |= RCC_AHB4ENR_GPIOD;
    GPIO_AFRL(GPIOD_BASE) = (GPIO_AFRL(GPIOD_BASE) & ~0xFFu) | 0x99u; /* AF9 */
    gpio_mode(GPIOD_BASE, 0, GPIO_MODE_ALTERNATE);
    gpio_mode(GPIOD_BASE, 1, GPIO_MODE_ALTERNATE);

    FDCAN1_CCCR |= FDCAN_CCCR_INIT;
    wait_init(FDCAN_CCCR_INIT);
    FDCAN1_CCCR |= FDCAN_CCCR_CCE;
    FDCAN1_NBTP = BIT_TIMING_500K;

    for (uint32_t offset = 0; offset < RAM_END; offset += 4u) {
        *ram(offset) = 0;
    }
    const uint32_t filters = count < FDCAN_FILTERS_MAX ? (uint32_t)count : FDCAN_FILTERS_MAX;
    for (uint32_t i = 0; i < filters; i++) {
        *ram(FILTER_OFFSET + 4u * i) = FILTER_CLASSIC_TO_FIFO0 | ((uint32_t)accepted[i] << 16) | FILTER_EXACT;
    }
    FDCAN1_GFC = FDCAN_GFC_REJECT_ALL_ELSE;
    FDCAN1_SIDFC = (filters << 16) | FILTER_OFFSET;
    FDCAN1_XIDFC = 0;
    FDCAN1_RXESC = 0; /* 8 data bytes */
    FDCAN1_TXESC = 0;
    FDCAN1_RXF0C = (RX_ELEMENTS << 16) | RX_OFFSET;
    /* A queue, not a FIFO: the lowest identifier leaves first. */
    FDCAN1_TXBC = FDCAN_TXBC_QUEUE_MODE | (TX_ELEMENTS << 24) | TX_OFFSET;

    FDCAN1_CCCR &= ~FDCAN_CCCR_INIT;
    wait_init(0);
}

bool fdcan_send(const struct can_frame *frame)
{
    const uint32_t status = FDCAN1_TXFQS;
    if ((status & FDCAN_TXFQS_FULL) != 0u) {
        return false;
    }
    const uint32_t index = (status >> 16) & 0x1Fu;
    volatile uint32_t *element = ram(TX_OFFSET + ELEMENT_BYTES * index);
    const uint8_t *d = frame->data;
    element[0] = (uint32_t)frame->id << 18;
    element[1] = (uint32_t)frame->length << 16;
    element[2] = (uint32_t)d[0] | (uint32_t)d[1] << 8 | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 24;
    element[3] = (uint32_t)d[4] | (uint32_t)d[5] << 8 | (uint32_t)d[6] << 16 | (uint32_t)d[7] << 24;
    FDCAN1_TXBAR = 1u << index;
    return true;
}

bool fdcan_receive(struct can_frame *frame)
{
    const uint32_t status = FDCAN1_RXF0S;
    if ((status & 0x7Fu) == 0u) {
        return false;
    }
    const uint32_t index = (status >> 8) & 0x3Fu;
    const volatile uint32_t *element = ram(RX_OFFSET + ELEMENT_BYTES * index);
    const uint32_t length = (element[1] >> 16) & 0x0Fu;
    frame->id = (uint16_t)((element[0] >> 18) & 0x7FFu);
    frame->length = (uint8_t)(length < 8u ? length : 8u);
    for (uint32_t i = 0; i < 8u; i++) {
        frame->data[i] = (uint8_t)(element[2u + i / 4u] >> (8u * (i % 4u)));
    }
    FDCAN1_RXF0A = index;
    return true;
}

void fdcan_recover(void)
{
    if ((FDCAN1_PSR & FDCAN_PSR_BO) != 0u) {
        FDCAN1_CCCR &= ~FDCAN_CCCR_INIT;
    }
}
