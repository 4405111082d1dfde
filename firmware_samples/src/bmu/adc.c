#include "adc.h"

#include "stm32h743.h"

#define SPIN_LIMIT 10000u

/* ADC3 inputs: channel number and pin. */
#define CHANNEL_CELL 5u        /* PF3 */
#define CHANNEL_TEMPERATURE 4u /* PF5 */
#define CHANNEL_CURRENT 3u     /* PF7 */
#define CHANNEL_LINK 2u        /* PF9 */
#define CHANNEL_AUX 6u         /* PF10 */

/* 16-bit results. Full scale of each input: */
#define CELL_FULL_UV 5000000
#define LINK_FULL_MV 2000000
#define AUX_FULL_MV 36000
#define CURRENT_FULL_MA 500000 /* either way; half scale is no current */
#define TEMPERATURE_FULL_MDEGC 200000
#define TEMPERATURE_ZERO_MDEGC (-50000)

void adc_init(void)
{
    RCC_AHB4ENR |= RCC_AHB4ENR_ADC3 | RCC_AHB4ENR_GPIOE | RCC_AHB4ENR_GPIOF;
    for (uint32_t pin = 0; pin < 8u; pin++) {
        gpio_mode(GPIOE_BASE, pin, GPIO_MODE_OUTPUT);
    }
    ADC3_CCR = ADC_CCR_CKMODE_HCLK_DIV4;
    ADC3_CR = ADC_CR_ADVREGEN; /* leaves deep power-down too */
    for (uint32_t i = 0; i < SPIN_LIMIT && (ADC3_ISR & ADC_ISR_LDORDY) == 0u; i++) {
    }
    ADC3_CR |= ADC_CR_ADCAL;
    for (uint32_t i = 0; i < 100u * SPIN_LIMIT && (ADC3_CR & ADC_CR_ADCAL) != 0u; i++) {
    }
    ADC3_PCSEL = (1u << CHANNEL_CELL) | (1u << CHANNEL_TEMPERATURE) | (1u << CHANNEL_CURRENT) | (1u << CHANNEL_LINK) |
                 (1u << CHANNEL_AUX);
    ADC3_CFGR = ADC_CFGR_OVRMOD; /* single conversions of 16 bits, the last result stays */
    ADC3_SMPR1 = (4u << 3 * CHANNEL_CELL) | (4u << 3 * CHANNEL_TEMPERATURE) | (4u << 3 * CHANNEL_CURRENT) |
                 (4u << 3 * CHANNEL_LINK) | (4u << 3 * CHANNEL_AUX); /* 32.5 clocks */
    ADC3_ISR = ADC_ISR_ADRDY;
    ADC3_CR |= ADC_CR_ADEN;
    for (uint32_t i = 0; i < SPIN_LIMIT && (ADC3_ISR & ADC_ISR_ADRDY) == 0u; i++) {
    }
}

static bool convert(uint32_t channel, int32_t *result)
{
    ADC3_SQR1 = channel << 6; /* one conversion */
    ADC3_CR |= ADC_CR_ADSTART;
    for (uint32_t i = 0; i < SPIN_LIMIT; i++) {
        if ((ADC3_ISR & ADC_ISR_EOC) != 0u) {
            *result = (int32_t)(ADC3_DR & 0xFFFFu);
            return true;
        }
    }
    *result = 0;
    return false;
}

/* full * result / 65536 without leaving 32 bits. */
static int32_t scale(int32_t full, int32_t result)
{
    return (int32_t)(((int64_t)full * result) >> 16);
}

bool adc_read_cell(uint32_t cell, int32_t *voltage_uv, int32_t *temperature_mdegc)
{
    GPIO_BSRR(GPIOE_BASE) = (0xFFu << 16) | cell;
    int32_t voltage = 0;
    int32_t temperature = 0;
    (void)convert(CHANNEL_CELL, &voltage); /* the first result is thrown away: the input settles */
    const bool ok = convert(CHANNEL_CELL, &voltage) && convert(CHANNEL_TEMPERATURE, &temperature);
    *voltage_uv = scale(CELL_FULL_UV, voltage);
    *temperature_mdegc = scale(TEMPERATURE_FULL_MDEGC, temperature) + TEMPERATURE_ZERO_MDEGC;
    return ok;
}

bool adc_read_current_ma(int32_t *current_ma)
{
    int32_t result = 0;
    const bool ok = convert(CHANNEL_CURRENT, &result);
    *current_ma = ok ? scale(2 * CURRENT_FULL_MA, result) - CURRENT_FULL_MA : 0;
    return ok;
}

bool adc_read_link_mv(int32_t *link_mv)
{
    int32_t result = 0;
    const bool ok = convert(CHANNEL_LINK, &result);
    *link_mv = scale(LINK_FULL_MV, result);
    return ok;
}

bool adc_read_aux_mv(int32_t *aux_mv)
{
    int32_t result = 0;
    const bool ok = convert(CHANNEL_AUX, &result);
    *aux_mv = scale(AUX_FULL_MV, result);
    return ok;
}
