/* The 1 ms tick that everything is timed by. */
#ifndef TICK_H
#define TICK_H

#include <stdint.h>

void SysTick_Handler(void);
void tick_init(void);

/* Sleeps until the next tick and gives the milliseconds since start. */
uint32_t tick_wait(void);

#endif
