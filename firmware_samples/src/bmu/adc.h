/* The analogue side of the bench board: ADC3, and a multiplexer on PE0-PE7 that puts one cell and its sensor on it. */
#ifndef ADC_H
#define ADC_H

#include <stdbool.h>
#include <stdint.h>

void adc_init(void);

/* False if the converter does not answer. */
bool adc_read_cell(uint32_t cell, int32_t *voltage_uv, int32_t *temperature_mdegc);
bool adc_read_current_ma(int32_t *current_ma);
bool adc_read_link_mv(int32_t *link_mv);
bool adc_read_aux_mv(int32_t *aux_mv);

#endif
