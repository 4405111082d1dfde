#include "tick.h"

#include "stm32h743.h"

static volatile uint32_t ticks;

void SysTick_Handler(void)
{
    ticks++;
}

void tick_init(void)
{
    SYST_RVR = CORE_CLOCK_HZ / 1000u - 1u;
    SYST_CVR = 0;
    SYST_CSR = SYST_CSR_CLKSOURCE | SYST_CSR_TICKINT | SYST_CSR_ENABLE;
}

uint32_t tick_wait(void)
{
    static uint32_t handled;

    /* With PRIMASK set a pending tick still ends wfi, so none is missed between the test and the sleep. */
    __asm volatile("cpsid i" ::: "memory");
    while (ticks == handled) {
        __asm volatile("wfi\n cpsie i\n isb\n cpsid i" ::: "memory");
    }
    __asm volatile("cpsie i" ::: "memory");
    handled++; /* one step per tick: after an overrun the missed steps are caught up */
    return handled;
}
