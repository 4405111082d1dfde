/* Vector table, reset and faults. */
#include <stddef.h>
#include <stdint.h>

#include "stm32h743.h"
#include "tick.h"

extern uint32_t _stack_top;
extern uint32_t _data_start;
extern uint32_t _data_end;
extern uint32_t _data_load;
extern uint32_t _bss_start;
extern uint32_t _bss_end;

int main(void);
void Reset_Handler(void);
void Fault_Handler(void);

typedef void (*vector)(void);

#define SYSTEM_VECTORS 16u
#define VECTOR_COUNT (SYSTEM_VECTORS + IRQ_COUNT)

/* No interrupt of a peripheral is used: one that comes nevertheless is a fault, like the exceptions. */
__attribute__((section(".vectors"), used)) const vector flash_vectors[VECTOR_COUNT] = {
    [0] = (vector)(uintptr_t)&_stack_top,
    [1] = Reset_Handler,
    [2 ... 6] = Fault_Handler,  /* NMI, HardFault, MemManage, BusFault, UsageFault */
    [11 ... 12] = Fault_Handler, /* SVCall, DebugMonitor */
    [14] = Fault_Handler,       /* PendSV */
    [15] = SysTick_Handler,
    [16 ... VECTOR_COUNT - 1] = Fault_Handler,
};

__attribute__((section(".ram_vectors"))) static vector ram_vectors[VECTOR_COUNT];

void Reset_Handler(void)
{
    for (size_t i = 0; i < VECTOR_COUNT; i++) {
        ram_vectors[i] = flash_vectors[i];
    }
    SCB_VTOR = (uint32_t)(uintptr_t)ram_vectors;
    __asm volatile("dsb\n isb" ::: "memory");

    const uint32_t *from = &_data_load;
    for (uint32_t *to = &_data_start; to < &_data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &_bss_start; to < &_bss_end;) {
        *to++ = 0;
    }
    __asm volatile("cpsie i" ::: "memory");
    (void)main();
    Fault_Handler();
}

/* A fault restarts the node.  An image on trial that faults is thus given up by the bootloader. */
void Fault_Handler(void)
{
    SCB_AIRCR = SCB_AIRCR_SYSRESETREQ;
    __asm volatile("dsb" ::: "memory");
    for (;;) {
    }
}
