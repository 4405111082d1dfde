/* The independent watchdog: 500 ms without a reload restart the node. */
#ifndef WATCHDOG_H
#define WATCHDOG_H

void watchdog_start(void);
void watchdog_reload(void);

#endif
