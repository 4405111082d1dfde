#include "cells.h"

#include "adc.h"
#include "release.h"

/* A cell rests when the rack's current has stayed below 2 A for 10 minutes. */
#define REST_CURRENT_MA 2000
#define REST_SCANS (600000u / CELLS)

/* Readings outside these limits come from a broken wire or sensor. */
#define PLAUSIBLE_MIN_MV 500
#define PLAUSIBLE_MAX_MV 4500
#define PLAUSIBLE_MIN_MDEGC (-40000)
#define PLAUSIBLE_MAX_MDEGC 120000

#define SOC_FULL 1000000 /* state of charge in parts per million */

struct cell_state {
    bool measured;
    bool plausible;
    bool soc_known;
    int32_t voltage_mv;
    int32_t temperature_mdegc;
    int32_t soc_ppm;
    int32_t charge_rest; /* of the coulomb count: what was too little for 1 ppm */
};

static struct cell_state cells[CELLS];
static uint32_t next_cell;
static uint32_t resting_scans;

void cells_init(void)
{
    next_cell = 0;
    resting_scans = REST_SCANS; /* the rack has rested before its supply was switched on */
}

static int32_t interpolate(int32_t x, int32_t x0, int32_t x1, int32_t y0, int32_t y1)
{
    return x1 == x0 ? y0 : y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

/* The voltage of a curve's point at a temperature, in 0.1 mV. */
static int32_t ocv_at(const struct cell_data *data, uint32_t point, int32_t temperature_mdegc)
{
    uint32_t row = 0;
    while (row < OCV_TEMPERATURES - 2u && temperature_mdegc > ocv_temperature_degc[row + 1u] * 1000) {
        row++;
    }
    const int32_t cold = ocv_temperature_degc[row] * 1000;
    const int32_t warm = ocv_temperature_degc[row + 1u] * 1000;
#if SOC_INTERPOLATES_TEMPERATURE
    if (temperature_mdegc <= cold) {
        return data->ocv_100uv[row][point];
    }
    if (temperature_mdegc >= warm) {
        return data->ocv_100uv[row + 1u][point];
    }
    return interpolate(temperature_mdegc, cold, warm, data->ocv_100uv[row][point], data->ocv_100uv[row + 1u][point]);
#else
    return data->ocv_100uv[temperature_mdegc - cold < warm - temperature_mdegc ? row : row + 1u][point];
#endif
}

/* State of charge whose open-circuit voltage is this, in parts per million. */
static int32_t soc_from_ocv(const struct cell_data *data, int32_t ocv_100uv, int32_t temperature_mdegc)
{
    uint32_t low = 0;
    uint32_t high = OCV_POINTS - 1u;
    if (ocv_100uv <= ocv_at(data, low, temperature_mdegc)) {
        return 0;
    }
    if (ocv_100uv >= ocv_at(data, high, temperature_mdegc)) {
        return SOC_FULL;
    }
    while (high - low > 1u) {
        const uint32_t middle = (low + high) / 2u;
        if (ocv_at(data, middle, temperature_mdegc) <= ocv_100uv) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const int32_t step = SOC_FULL / (OCV_POINTS - 1);
    return interpolate(ocv_100uv, ocv_at(data, low, temperature_mdegc), ocv_at(data, high, temperature_mdegc),
                       (int32_t)low * step, (int32_t)high * step);
}

/* Internal resistance for the direction of the current, uOhm; the colder row and the emptier column count. */
static int32_t resistance_uohm(const struct cell_data *data, const struct cell_state *cell, int32_t current_ma)
{
    uint32_t row = R_TEMPERATURES - 1u;
    while (row > 0u && cell->temperature_mdegc < r_temperature_degc[row] * 1000) {
        row--;
    }
    const uint32_t column = (uint32_t)cell->soc_ppm / (SOC_FULL / (R_POINTS - 1));
    return data->resistance_uohm[current_ma < 0 ? 1 : 0][row][column];
}

/* Coulomb count over one scan: mA * ms against 10 mAh, in parts per million.  Positive current discharges. */
static void count_charge(struct cell_state *cell, const struct cell_data *data, int32_t current_ma)
{
    /* 1 ppm of the capacity is capacity_10mah * 10 mAh * 3600 s/h * 1000 ms/s / 1e6 = capacity_10mah * 36 mA ms. */
    const int32_t unit = data->capacity_10mah * 36;
    const int32_t charge = current_ma * CELLS + cell->charge_rest;
    cell->soc_ppm -= charge / unit;
    cell->charge_rest = charge % unit;
    if (cell->soc_ppm < 0) {
        cell->soc_ppm = 0;
    }
    if (cell->soc_ppm > SOC_FULL) {
        cell->soc_ppm = SOC_FULL;
    }
}

static int32_t corrected_mv(const struct cell_data *data, int32_t raw_uv)
{
    return (raw_uv + raw_uv / 1000 * data->gain_ppm / 1000 + data->offset_10uv * 10 + 500) / 1000;
}

void cells_step(int32_t current_ma)
{
    struct cell_state *cell = &cells[next_cell];
    const struct cell_data *data = &cell_data[next_cell];
    int32_t raw_uv = 0;
    int32_t temperature_mdegc = 0;

    cell->measured = true;
    cell->plausible = adc_read_cell(next_cell, &raw_uv, &temperature_mdegc);
    cell->voltage_mv = corrected_mv(data, raw_uv);
    cell->temperature_mdegc = temperature_mdegc;
    if (cell->voltage_mv < PLAUSIBLE_MIN_MV || cell->voltage_mv > PLAUSIBLE_MAX_MV ||
        temperature_mdegc < PLAUSIBLE_MIN_MDEGC || temperature_mdegc > PLAUSIBLE_MAX_MDEGC) {
        cell->plausible = false;
    }

    if (cell->soc_known) {
        count_charge(cell, data, current_ma);
    }
    if (cell->plausible && (resting_scans >= REST_SCANS || !cell->soc_known)) {
        /* Under load the voltage drop over the internal resistance is added back: mA * uOhm is nV. */
        const int32_t drop_100uv = current_ma / 100 * resistance_uohm(data, cell, current_ma) / 1000;
        cell->soc_ppm = soc_from_ocv(data, cell->voltage_mv * 10 + drop_100uv, temperature_mdegc);
        cell->charge_rest = 0;
        cell->soc_known = true;
    }

    if (++next_cell == CELLS) {
        next_cell = 0;
        const bool resting = current_ma > -REST_CURRENT_MA && current_ma < REST_CURRENT_MA;
        if (!resting) {
            resting_scans = 0;
        } else if (resting_scans < REST_SCANS) {
            resting_scans++;
        }
    }
}

struct cell_extremes cells_extremes(void)
{
    struct cell_extremes x = {
        .valid = true,
        .voltage_min_mv = cells[0].voltage_mv,
        .voltage_max_mv = cells[0].voltage_mv,
        .temperature_min_mdegc = cells[0].temperature_mdegc,
        .temperature_max_mdegc = cells[0].temperature_mdegc,
    };
    for (uint32_t i = 0; i < CELLS; i++) {
        const struct cell_state *cell = &cells[i];
        x.valid = x.valid && cell->measured && cell->plausible;
        x.string_mv += cell->voltage_mv;
        x.voltage_min_mv = cell->voltage_mv < x.voltage_min_mv ? cell->voltage_mv : x.voltage_min_mv;
        x.voltage_max_mv = cell->voltage_mv > x.voltage_max_mv ? cell->voltage_mv : x.voltage_max_mv;
        x.temperature_min_mdegc =
            cell->temperature_mdegc < x.temperature_min_mdegc ? cell->temperature_mdegc : x.temperature_min_mdegc;
        x.temperature_max_mdegc =
            cell->temperature_mdegc > x.temperature_max_mdegc ? cell->temperature_mdegc : x.temperature_max_mdegc;
    }
    return x;
}

bool cells_voltage_mv(uint32_t cell, int32_t *voltage_mv)
{
    *voltage_mv = cells[cell].voltage_mv;
    return cells[cell].measured && cells[cell].plausible;
}

bool cells_soc_milli_percent(int32_t *soc)
{
    int32_t lowest = SOC_FULL;
    for (uint32_t i = 0; i < CELLS; i++) {
        if (!cells[i].soc_known) {
            return false;
        }
        lowest = cells[i].soc_ppm < lowest ? cells[i].soc_ppm : lowest;
    }
    *soc = lowest / 10;
    return true;
}
