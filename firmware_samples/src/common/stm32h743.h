/* The registers of the STM32H743 that these applications use: addresses and bits as in ST's RM0433. */
#ifndef STM32H743_H
#define STM32H743_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))

/* Cortex-M7 system control space */
#define SYST_CSR REG(0xE000E010u)
#define SYST_RVR REG(0xE000E014u)
#define SYST_CVR REG(0xE000E018u)
#define SYST_CSR_ENABLE (1u << 0)
#define SYST_CSR_TICKINT (1u << 1)
#define SYST_CSR_CLKSOURCE (1u << 2)
#define SCB_VTOR REG(0xE000ED08u)
#define SCB_AIRCR REG(0xE000ED0Cu)
#define SCB_AIRCR_SYSRESETREQ (0x05FA0000u | (1u << 2))
#define SCB_CFSR REG(0xE000ED28u)

/* Reset and clock control.  After reset the core runs from HSI at 64 MHz and FDCAN's kernel clock is HSE. */
#define RCC_BASE 0x58024400u
#define RCC_CR REG(RCC_BASE + 0x00u)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_RSR REG(RCC_BASE + 0xD0u)
#define RCC_RSR_IWDG1RSTF (1u << 26)
#define RCC_RSR_RMVF (1u << 16)
#define RCC_AHB4ENR REG(RCC_BASE + 0xE0u)
#define RCC_AHB4ENR_GPIOA (1u << 0)
#define RCC_AHB4ENR_GPIOD (1u << 3)
#define RCC_AHB4ENR_GPIOE (1u << 4)
#define RCC_AHB4ENR_GPIOF (1u << 5)
#define RCC_AHB4ENR_GPIOG (1u << 6)
#define RCC_AHB4ENR_ADC3 (1u << 24)
#define RCC_APB1HENR REG(RCC_BASE + 0xECu)
#define RCC_APB1HENR_FDCAN (1u << 8)
#define RCC_APB2ENR REG(RCC_BASE + 0xF0u)
#define RCC_APB2ENR_USART1 (1u << 4)

/* General-purpose I/O */
#define GPIOA_BASE 0x58020000u
#define GPIOD_BASE 0x58020C00u
#define GPIOE_BASE 0x58021000u
#define GPIOG_BASE 0x58021800u
#define GPIO_MODER(port) REG((port) + 0x00u)
#define GPIO_PUPDR(port) REG((port) + 0x0Cu)
#define GPIO_IDR(port) REG((port) + 0x10u)
#define GPIO_BSRR(port) REG((port) + 0x18u)
#define GPIO_AFRL(port) REG((port) + 0x20u)
#define GPIO_AFRH(port) REG((port) + 0x24u)
#define GPIO_MODE_INPUT 0u
#define GPIO_MODE_OUTPUT 1u
#define GPIO_MODE_ALTERNATE 2u

/* Independent watchdog, clocked by LSI at 32 kHz */
#define IWDG1_BASE 0x58004800u
#define IWDG1_KR REG(IWDG1_BASE + 0x00u)
#define IWDG1_PR REG(IWDG1_BASE + 0x04u)
#define IWDG1_RLR REG(IWDG1_BASE + 0x08u)
#define IWDG1_SR REG(IWDG1_BASE + 0x0Cu)
#define IWDG_KEY_START 0xCCCCu
#define IWDG_KEY_UNLOCK 0x5555u
#define IWDG_KEY_RELOAD 0xAAAAu
#define IWDG_PR_DIV32 3u

/* ADC3 */
#define ADC3_BASE 0x58026000u
#define ADC3_ISR REG(ADC3_BASE + 0x00u)
#define ADC3_CR REG(ADC3_BASE + 0x08u)
#define ADC3_CFGR REG(ADC3_BASE + 0x0Cu)
#define ADC3_SMPR1 REG(ADC3_BASE + 0x14u)
#define ADC3_PCSEL REG(ADC3_BASE + 0x1Cu)
#define ADC3_SQR1 REG(ADC3_BASE + 0x30u)
#define ADC3_DR REG(ADC3_BASE + 0x40u)
#define ADC3_CCR REG(ADC3_BASE + 0x308u)
#define ADC_ISR_ADRDY (1u << 0)
#define ADC_ISR_EOC (1u << 2)
#define ADC_ISR_OVR (1u << 4)
#define ADC_ISR_LDORDY (1u << 12)
#define ADC_CR_ADEN (1u << 0)
#define ADC_CR_ADSTART (1u << 2)
#define ADC_CR_ADVREGEN (1u << 28)
#define ADC_CR_ADCAL (1u << 31)
#define ADC_CFGR_OVRMOD (1u << 12)
#define ADC_CCR_CKMODE_HCLK_DIV4 (3u << 16)

/* FDCAN1 and the message RAM that it shares */
#define FDCAN1_BASE 0x4000A000u
#define SRAMCAN_BASE 0x4000AC00u
#define FDCAN1_CCCR REG(FDCAN1_BASE + 0x018u)
#define FDCAN1_NBTP REG(FDCAN1_BASE + 0x01Cu)
#define FDCAN1_PSR REG(FDCAN1_BASE + 0x044u)
#define FDCAN1_GFC REG(FDCAN1_BASE + 0x080u)
#define FDCAN1_SIDFC REG(FDCAN1_BASE + 0x084u)
#define FDCAN1_XIDFC REG(FDCAN1_BASE + 0x088u)
#define FDCAN1_RXF0C REG(FDCAN1_BASE + 0x0A0u)
#define FDCAN1_RXF0S REG(FDCAN1_BASE + 0x0A4u)
#define FDCAN1_RXF0A REG(FDCAN1_BASE + 0x0A8u)
#define FDCAN1_RXESC REG(FDCAN1_BASE + 0x0BCu)
#define FDCAN1_TXBC REG(FDCAN1_BASE + 0x0C0u)
#define FDCAN1_TXFQS REG(FDCAN1_BASE + 0x0C4u)
#define FDCAN1_TXESC REG(FDCAN1_BASE + 0x0C8u)
#define FDCAN1_TXBAR REG(FDCAN1_BASE + 0x0D0u)
#define FDCAN_CCCR_INIT (1u << 0)
#define FDCAN_CCCR_CCE (1u << 1)
#define FDCAN_PSR_BO (1u << 7)
#define FDCAN_GFC_REJECT_ALL_ELSE ((2u << 4) | (2u << 2) | (1u << 1) | (1u << 0))
#define FDCAN_TXBC_QUEUE_MODE (1u << 30)
#define FDCAN_TXFQS_FULL (1u << 21)

/* USART1 */
#define USART1_BASE 0x40011000u
#define USART1_CR1 REG(USART1_BASE + 0x00u)
#define USART1_BRR REG(USART1_BASE + 0x0Cu)
#define USART1_ISR REG(USART1_BASE + 0x1Cu)
#define USART1_ICR REG(USART1_BASE + 0x20u)
#define USART1_RDR REG(USART1_BASE + 0x24u)
#define USART1_TDR REG(USART1_BASE + 0x28u)
#define USART_CR1_UE (1u << 0)
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_CR1_FIFOEN (1u << 29)
#define USART_ISR_FE (1u << 1)
#define USART_ISR_NE (1u << 2)
#define USART_ISR_ORE (1u << 3)
#define USART_ISR_RXNE (1u << 5)
#define USART_ISR_TXE (1u << 7)

#define CORE_CLOCK_HZ 64000000u
#define IRQ_COUNT 150u

/* Sets the two mode bits of one pin. */
static inline void gpio_mode(uint32_t port, uint32_t pin, uint32_t mode)
{
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (2u * pin))) | (mode << (2u * pin));
}

#endif
