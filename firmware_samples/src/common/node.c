#include "node.h"

#include "ess_dbc.h"
#include "fdcan.h"
#include "release.h"

__attribute__((section(".handover"), used)) static volatile struct handover handover_area;

/* Behind the vector table, so that a person or a tool finds it in the image. */
__attribute__((section(".identity"), used)) const char firmware_identity[32] = FW_IDENTITY;

struct handover node_handover(void)
{
    struct handover handover = {0};
    if (handover_area.magic == HANDOVER_MAGIC) {
        handover.magic = HANDOVER_MAGIC;
        handover.boot_counter = handover_area.boot_counter;
        handover.bank = handover_area.bank;
        handover.image_state = handover_area.image_state;
        handover.hardware_id = handover_area.hardware_id;
    } else {
        handover.image_state = NODE_INFO_BMU_IMAGE_STATE_TRIAL;
    }
    return handover;
}

/* The DBC lays Node_Info out alike for every node; NODE_INFO_BMU's signals serve for all. */
void node_send_info(const struct can_message *message, uint32_t node_type, const struct handover *handover)
{
    struct can_frame frame = {.id = message->id, .length = message->length};
    signal_put(frame.data, &NODE_INFO_BMU_NODE_TYPE, (int32_t)node_type);
    signal_put(frame.data, &NODE_INFO_BMU_BANK, handover->bank);
    signal_put(frame.data, &NODE_INFO_BMU_BOOT_COUNTER, (int32_t)(handover->boot_counter & 0x0Fu));
    signal_put(frame.data, &NODE_INFO_BMU_IMAGE_STATE, handover->image_state);
    signal_put(frame.data, &NODE_INFO_BMU_DBC_FINGERPRINT, (int32_t)DBC_FINGERPRINT);
    signal_put(frame.data, &NODE_INFO_BMU_HARDWARE_ID, handover->hardware_id);
    signal_put(frame.data, &NODE_INFO_BMU_VERSION_MAJOR, FW_MAJOR);
    signal_put(frame.data, &NODE_INFO_BMU_VERSION_MINOR, FW_MINOR);
    signal_put(frame.data, &NODE_INFO_BMU_VERSION_REVISION, FW_REVISION);
    (void)fdcan_send(&frame);
}
