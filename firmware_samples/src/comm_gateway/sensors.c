#include "sensors.h"

#include "stm32h743.h"

#define SPIN_LIMIT 10000u

/* ADC3 inputs PF3, PF5 and PF7. */
static const uint8_t channels[3] = {5, 4, 3};
static const int16_t *const characteristics[3] = {ambient_centi_degc, coolant_centi_degc, busbar_centi_degc};

void sensors_init(void)
{
    RCC_AHB4ENR |= RCC_AHB4ENR_ADC3 | RCC_AHB4ENR_GPIOF;
    ADC3_CCR = ADC_CCR_CKMODE_HCLK_DIV4;
    ADC3_CR = ADC_CR_ADVREGEN;
    for (uint32_t i = 0; i < SPIN_LIMIT && (ADC3_ISR & ADC_ISR_LDORDY) == 0u; i++) {
    }
    ADC3_CFGR = ADC_CFGR_OVRMOD;
    for (uint32_t i = 0; i < 3u; i++) {
        ADC3_PCSEL |= 1u << channels[i];
        ADC3_SMPR1 |= 7u << 3u * channels[i]; /* 810.5 clocks: the dividers are of high impedance */
    }
    ADC3_ISR = ADC_ISR_ADRDY;
    ADC3_CR |= ADC_CR_ADEN;
    for (uint32_t i = 0; i < SPIN_LIMIT && (ADC3_ISR & ADC_ISR_ADRDY) == 0u; i++) {
    }
}

int16_t sensors_read(uint32_t sensor)
{
    ADC3_SQR1 = (uint32_t)channels[sensor] << 6;
    ADC3_CR |= ADC_CR_ADSTART;
    for (uint32_t i = 0; i < SPIN_LIMIT; i++) {
        if ((ADC3_ISR & ADC_ISR_EOC) != 0u) {
            return characteristics[sensor][(ADC3_DR & 0xFFFFu) >> 4];
        }
    }
    return INT16_MIN;
}
