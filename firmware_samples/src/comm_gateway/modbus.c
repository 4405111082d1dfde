#include "modbus.h"

#include <stdbool.h>
#include <stddef.h>

#include "registers.h"
#include "stm32h743.h"

#define ADDRESS 1u
#define BAUD_RATE 19200u
#define READ_INPUT_REGISTERS 0x04u
#define ILLEGAL_FUNCTION 0x01u
#define ILLEGAL_DATA_ADDRESS 0x02u
#define ILLEGAL_DATA_VALUE 0x03u
#define REGISTERS_PER_READ 125u
#define REQUEST_LENGTH 8u
#define FRAME_MAX 256u
#define SILENCE_MS 3u /* 3.5 characters are 2.0 ms: they end a frame */

static uint8_t request[FRAME_MAX];
static size_t request_length;
static uint32_t last_byte_ms;
static uint8_t answer[FRAME_MAX];
static size_t answer_length;
static size_t answer_sent;

/* The CRC-16 of Modbus: polynomial 0x8005 reflected, start 0xFFFF. */
static uint16_t crc16(const uint8_t *data, size_t length)
{
    uint16_t crc = 0xFFFF;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (uint32_t bit = 0; bit < 8u; bit++) {
            crc = (uint16_t)((crc & 1u) != 0u ? (crc >> 1) ^ 0xA001u : crc >> 1);
        }
    }
    return crc;
}

void modbus_init(void)
{
    RCC_AHB4ENR |= RCC_AHB4ENR_GPIOA;
    RCC_APB2ENR |= RCC_APB2ENR_USART1;
    GPIO_AFRH(GPIOA_BASE) = (GPIO_AFRH(GPIOA_BASE) & ~0xFF0u) | 0x770u; /* AF7 */
    gpio_mode(GPIOA_BASE, 9, GPIO_MODE_ALTERNATE);
    gpio_mode(GPIOA_BASE, 10, GPIO_MODE_ALTERNATE);
    USART1_BRR = (CORE_CLOCK_HZ + BAUD_RATE / 2u) / BAUD_RATE;
    /* The FIFOs hold 16 bytes; at 19200 baud two arrive in a tick. */
    USART1_CR1 = USART_CR1_FIFOEN | USART_CR1_TE | USART_CR1_RE | USART_CR1_UE;
}

static void finish_answer(size_t length)
{
    const uint16_t crc = crc16(answer, length);
    answer[length] = (uint8_t)crc;
    answer[length + 1u] = (uint8_t)(crc >> 8);
    answer_length = length + 2u;
    answer_sent = 0;
}

static void refuse(uint8_t code)
{
    answer[0] = ADDRESS;
    answer[1] = (uint8_t)(request[1] | 0x80u);
    answer[2] = code;
    finish_answer(3);
}

static void serve(uint32_t now_ms)
{
    if (request_length < 4u || request[0] != ADDRESS || crc16(request, request_length) != 0u) {
        return; /* not for us, or damaged: the client times out and repeats */
    }
    if (request[1] != READ_INPUT_REGISTERS) {
        refuse(ILLEGAL_FUNCTION);
        return;
    }
    const uint32_t first = (uint32_t)request[2] << 8 | request[3];
    const uint32_t count = (uint32_t)request[4] << 8 | request[5];
    if (request_length != REQUEST_LENGTH || count == 0u || count > REGISTERS_PER_READ) {
        refuse(ILLEGAL_DATA_VALUE);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint16_t value = 0;
        if (!registers_read(first + i, now_ms, &value)) {
            refuse(ILLEGAL_DATA_ADDRESS);
            return;
        }
        answer[3u + 2u * i] = (uint8_t)(value >> 8);
        answer[4u + 2u * i] = (uint8_t)value;
    }
    answer[0] = ADDRESS;
    answer[1] = READ_INPUT_REGISTERS;
    answer[2] = (uint8_t)(2u * count);
    finish_answer(3u + 2u * count);
}

void modbus_step(uint32_t now_ms)
{
    USART1_ICR = USART1_ISR & (USART_ISR_FE | USART_ISR_NE | USART_ISR_ORE); /* the CRC finds what they damaged */
    while ((USART1_ISR & USART_ISR_RXNE) != 0u) {
        const uint8_t byte = (uint8_t)USART1_RDR;
        last_byte_ms = now_ms;
        if (request_length < FRAME_MAX) {
            request[request_length++] = byte;
        }
    }
    if (request_length > 0u && now_ms - last_byte_ms >= SILENCE_MS) {
        serve(now_ms);
        request_length = 0;
    }
    while (answer_sent < answer_length && (USART1_ISR & USART_ISR_TXE) != 0u) {
        USART1_TDR = answer[answer_sent++];
    }
}
