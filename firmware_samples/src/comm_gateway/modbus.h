/* A Modbus RTU server on USART1 (PA9, PA10; 19200 baud, 8N1): function 4, read input registers. */
#ifndef MODBUS_H
#define MODBUS_H

#include <stdint.h>

void modbus_init(void);

/* Once a millisecond: takes received bytes, answers a complete request, sends what is to be sent. */
void modbus_step(uint32_t now_ms);

#endif
