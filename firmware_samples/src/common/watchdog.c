#include "watchdog.h"

#include "stm32h743.h"

void watchdog_start(void)
{
    IWDG1_KR = IWDG_KEY_START;
    IWDG1_KR = IWDG_KEY_UNLOCK;
    IWDG1_PR = IWDG_PR_DIV32; /* 32 kHz / 32 = 1 kHz */
    IWDG1_RLR = 500u - 1u;
    for (uint32_t i = 0; i < CORE_CLOCK_HZ / 100u && IWDG1_SR != 0u; i++) {
    }
    watchdog_reload();
}

void watchdog_reload(void)
{
    IWDG1_KR = IWDG_KEY_RELOAD;
}
