#include "contactors.h"

#include "ess_dbc.h"
#include "release.h"
#include "stm32h743.h"

/* Auxiliary contacts on PG0-PG2 (closed = high), coil drivers on PG4-PG6. */
enum contactor { MAIN_PLUS, MAIN_MINUS, PRECHARGE, CONTACTORS };
#define COIL_PIN(contactor) (4u + (contactor))

#define MOVE_MS 100u           /* a contactor that has not followed by then never will */
#define PRECHARGE_MS 5000u     /* limit for the link to follow the string */
#define PRECHARGE_PERMILLE 950 /* of string voltage */
#define COOL_DOWN_MS 30000u    /* of the precharge resistor after a failed try */
#define PRECHARGE_TRIES 3u
#define BREAK_CURRENT_MA 200000 /* contactors are never ordered open above it, an emergency stop apart */
#define ORDER_MS 500u          /* an order that is not repeated for so long is no order any more */
#define OFF_LINK_MV 60000
#define OFF_CURRENT_MA 1000

enum state {
    STATE_OPEN = BMS_STATE_STATE_OPEN,
    STATE_PRECHARGING = BMS_STATE_STATE_PRECHARGING,
    STATE_CLOSED = BMS_STATE_STATE_CLOSED,
    STATE_FAULT = BMS_STATE_STATE_FAULT,
};

static enum state state;
static uint32_t state_ms;
static uint32_t cool_down_ms;
static uint32_t failed_tries;
static uint32_t order_age_ms;
static bool locked;
static bool open_wanted;
static bool close_wanted;
static bool coil[CONTACTORS];
static uint32_t disagreement_ms[CONTACTORS];
static bool welded[CONTACTORS];
static uint32_t off_ms;
static bool off;

static void drive(enum contactor which, bool on)
{
    coil[which] = on;
    GPIO_BSRR(GPIOG_BASE) = 1u << (COIL_PIN((uint32_t)which) + (on ? 0u : 16u));
}

static void open_all(void)
{
    drive(MAIN_PLUS, false);
    drive(PRECHARGE, false);
    drive(MAIN_MINUS, false);
}

static void enter(enum state next)
{
    state = next;
    state_ms = 0;
}

static bool feedback(enum contactor which)
{
    return ((GPIO_IDR(GPIOG_BASE) >> (uint32_t)which) & 1u) != 0u;
}

static uint8_t contactor_state(enum contactor which)
{
    if (feedback(which) != coil[which] && disagreement_ms[which] < MOVE_MS) {
        return BMS_HV_STATUS_MAIN_PLUS_MOVING;
    }
    return feedback(which) ? BMS_HV_STATUS_MAIN_PLUS_CLOSED : BMS_HV_STATUS_MAIN_PLUS_OPEN;
}

static int32_t magnitude(int32_t value)
{
    return value < 0 ? -value : value;
}

void contactors_init(void)
{
    RCC_AHB4ENR |= RCC_AHB4ENR_GPIOG;
    GPIO_BSRR(GPIOG_BASE) = 0x70u << 16; /* coils off before the pins become outputs */
    for (uint32_t i = 0; i < CONTACTORS; i++) {
        gpio_mode(GPIOG_BASE, i, GPIO_MODE_INPUT);
        gpio_mode(GPIOG_BASE, COIL_PIN(i), GPIO_MODE_OUTPUT);
    }
    enter(STATE_OPEN);
}

void contactors_order(int32_t command)
{
    if (command == EMS_PCS_COMMAND_COMMAND_LOCK) {
        locked = true;
    } else if (command == EMS_PCS_COMMAND_COMMAND_UNLOCK) {
        locked = false;
    }
    order_age_ms = 0;
    open_wanted = command == EMS_PCS_COMMAND_COMMAND_OPEN;
    close_wanted = command == EMS_PCS_COMMAND_COMMAND_CLOSE;
}

static void watch_feedback(void)
{
    for (uint32_t i = 0; i < CONTACTORS; i++) {
        if (feedback((enum contactor)i) == coil[i]) {
            disagreement_ms[i] = 0;
        } else if (disagreement_ms[i] < MOVE_MS) {
            disagreement_ms[i]++;
        } else if (!coil[i]) {
            welded[i] = true; /* latched: a person has to look at it */
        }
    }
}

static void judge_off(const struct hv_inputs *in)
{
    bool open = true;
    for (uint32_t i = 0; i < CONTACTORS; i++) {
        open = open && !coil[i] && !feedback((enum contactor)i) && !welded[i];
    }
    off = open && in->link_valid && in->link_mv < OFF_LINK_MV && in->current_valid &&
          magnitude(in->current_ma) < OFF_CURRENT_MA;
    if (!off) {
        off_ms = 0;
    } else if (off_ms < UINT32_MAX) {
        off_ms++;
    }
}

static void fault(void)
{
    open_all();
    enter(STATE_FAULT);
}

static void try_to_close(const struct hv_inputs *in)
{
    if (!close_wanted || locked || cool_down_ms > 0u || failed_tries >= PRECHARGE_TRIES || !in->hvil_closed ||
        !in->link_valid || !in->string_valid) {
        return;
    }
    drive(MAIN_MINUS, true);
    drive(PRECHARGE, true);
    enter(STATE_PRECHARGING);
}

static void precharge(const struct hv_inputs *in)
{
    const bool reached =
        in->link_valid && in->string_valid && in->link_mv >= in->string_mv / 1000 * PRECHARGE_PERMILLE;
    if (state_ms > MOVE_MS && reached) {
        failed_tries = 0;
        drive(MAIN_PLUS, true);
        enter(STATE_CLOSED);
    } else if (state_ms > PRECHARGE_MS || !close_wanted) {
        open_all();
        if (state_ms > PRECHARGE_MS) {
            failed_tries++;
            cool_down_ms = COOL_DOWN_MS;
        }
        enter(STATE_OPEN);
    }
}

static void closed(const struct hv_inputs *in)
{
    if (coil[PRECHARGE] && state_ms > MOVE_MS) {
        drive(PRECHARGE, false);
    }
    if (open_wanted && in->current_valid && magnitude(in->current_ma) <= BREAK_CURRENT_MA) {
        open_all();
        enter(STATE_OPEN);
    }
}

void contactors_step(const struct hv_inputs *in)
{
    watch_feedback();
    state_ms++;
    if (cool_down_ms > 0u) {
        cool_down_ms--;
    }
    if (order_age_ms < ORDER_MS) {
        order_age_ms++;
    } else {
        open_wanted = false;
        close_wanted = false;
    }
    const bool weld = welded[MAIN_PLUS] || welded[MAIN_MINUS] || welded[PRECHARGE];
    if (state != STATE_FAULT && (in->stop || weld)) {
        fault();
    }
    switch (state) {
    case STATE_OPEN:
        try_to_close(in);
        break;
    case STATE_PRECHARGING:
        precharge(in);
        break;
    case STATE_CLOSED:
        closed(in);
        break;
    case STATE_FAULT:
        break; /* until the next restart, and a weld is then found again */
    }
    judge_off(in);
}

struct hv_status contactors_status(void)
{
    return (struct hv_status){
        .state = (uint8_t)state,
        .main_plus = contactor_state(MAIN_PLUS),
        .main_minus = contactor_state(MAIN_MINUS),
        .precharge = contactor_state(PRECHARGE),
        .weld_plus = welded[MAIN_PLUS] || welded[PRECHARGE],
        .weld_minus = welded[MAIN_MINUS],
        .precharge_failed = failed_tries > 0u,
        .off = off,
#if OFF_DURATION_SATURATES
        .off_ms = off_ms < 409500u ? off_ms : 409500u,
#else
        .off_ms = off_ms % 409600u,
#endif
    };
}
