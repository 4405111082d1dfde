/* Cell measurement and state of charge. */
#ifndef CELLS_H
#define CELLS_H

#include <stdbool.h>
#include <stdint.h>

#include "cell_data.h"

struct cell_extremes {
    bool valid; /* every cell was measured at least once and every reading was plausible */
    int32_t voltage_min_mv;
    int32_t voltage_max_mv;
    int32_t temperature_min_mdegc;
    int32_t temperature_max_mdegc;
    int32_t string_mv;
};

void cells_init(void);

/* Measures the next cell and updates its state of charge; a whole scan takes CELLS steps of 1 ms. */
void cells_step(int32_t current_ma);

struct cell_extremes cells_extremes(void);

/* False if the cell was not measured yet or its reading was not plausible. */
bool cells_voltage_mv(uint32_t cell, int32_t *voltage_mv);

/* Of the emptiest cell: it ends the discharge.  False before the first scan. */
bool cells_soc_milli_percent(int32_t *soc);

#endif
