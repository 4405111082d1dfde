"""The catalogue of faults: what may go wrong, what has to happen then, and the tests that prove it.

One row for each fault, attack and mistake.  `docs/generate.py` prints it into docs/safety.md, and a test holds that
every test named here exists.  What is not proved, or not done, says so in `open`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Section(Enum):
    """Where a fault belongs: the letter of its rows, and the heading."""

    BUS = ("B", "Bus")
    ISOTP = ("T", "ISO-TP")
    UDS = ("U", "UDS")
    FLASH = ("F", "Flash and boot")
    HV = ("H", "PCS, BMS, high voltage")
    GATEWAY = ("G", "Gateway process and storage")
    ATTACK = ("P", "Upgrade file, signature, attacks")
    OPERATOR = ("O", "Operator")

    @property
    def letter(self) -> str:
        return self.value[0]

    @property
    def title(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, what has to happen, and the tests that prove it, as `path::name` below ``tests/``.

    `open` says what is not covered; empty if nothing.
    """

    id: str
    fault: str
    required: str
    tests: tuple[str, ...]
    open: str = ""

    @property
    def section(self) -> Section:
        return next(section for section in Section if section.letter == self.id[0])


def _in(path: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{path}::{name}" for name in names)


_INTERRUPTIONS = "scenario/test_interruptions.py"
_HIGH_VOLTAGE = "scenario/test_high_voltage.py"
_FRAME_FAULTS = "scenario/test_frame_faults.py"
_REFUSALS = "scenario/test_refusals.py"
_DIRECT = "scenario/test_direct_client.py"
_GOOD_PATH = "scenario/test_good_path.py"
_BAD_FIRMWARE = "scenario/test_bad_firmware.py"
_TWO_GATEWAYS = "scenario/test_two_gateways.py"
_HOSTILE = "regression/test_hostile.py"
_MCUBOOT = "regression/test_mcuboot.py"
_UPDATERS = "regression/test_updaters.py"
_PLANTS = "regression/test_plants.py"
_KILLED_PLANT = "scenario/test_killed_plant.py"
_KEYS = "regression/test_keys.py"
_SENDER = "unit/isotp/test_sender.py"
_RECEIVER = "unit/isotp/test_receiver.py"
_CLIENT = "unit/uds/test_client.py"
_NODE_CLIENT = "unit/gateway/test_node_client.py"
_SERVER = "unit/uds/test_server.py"
_PROGRAMMING = "unit/uds/test_server_programming.py"
_UPGRADE = "unit/gateway/test_upgrade.py"
_NODE_UPGRADE = "unit/gateway/test_node_upgrade.py"
_ACCESS = "unit/uds/test_access.py"
_WIRE = "unit/sim/test_wire.py"
_ADAPTER = "unit/bus/test_adapter.py"
_BOOTLOADER = "unit/sim/test_bootloader.py"
_RECORDS = "unit/sim/test_boot_records.py"
_FLASH = "unit/sim/test_flash.py"
_MEMORY = "unit/sim/test_programming.py"
_CUTS = "campaign/test_flash_cuts.py"
_JOURNAL = "unit/journal/test_journal.py"
_JOURNAL_DISK = "unit/journal/test_disk.py"
_INTERLOCK = "unit/gateway/test_interlock.py"
_HV_CONTROL = "unit/sim/test_hv_control.py"
_HV_EVIDENCE = "unit/sim/test_hv_evidence.py"
_VERIFY = "unit/trust/test_verify.py"
_COMPATIBILITY = "unit/trust/test_compatibility.py"
_UPGRADE_FILE = "property/test_upgrade_file.py"


def _bus() -> Iterator[Row]:
    yield Row(
        "B1",
        "the controller becomes error passive",
        "a warning with both error counters; the upgrade goes on",
        _in(_ADAPTER, "test_error_passive_is_a_warning_once_each_time")
        + _in("scenario/test_bus_off.py", "test_error_passive_is_told_with_its_counters_and_the_upgrade_goes_on"),
    )
    yield Row(
        "B2",
        "the controller goes bus-off once",
        "a few restarts with growing pauses; E2E and sessions begin anew, HV-off is proved again before anything else",
        _in(
            "scenario/test_bus_off.py",
            "test_bus_off_once_in_any_phase_is_survived",
            "test_high_voltage_is_proved_off_again_and_the_transfer_is_resumed_where_it_was_verified",
        )
        + _in(
            "unit/bus/test_recovering_bus.py",
            "test_bus_off_is_a_warning_and_the_controller_is_restarted_later_each_time",
        )
        + _in(_INTERLOCK, "test_bus_off_ends_every_permit_and_the_proof_begins_anew"),
    )
    yield Row(
        "B3",
        "the controller goes bus-off again and again",
        "BUS_UNUSABLE; the plant is left safe",
        _in("scenario/test_bus_off.py", "test_the_fourth_time_the_bus_is_unusable_and_the_plant_is_safe_by_itself")
        + _in("unit/bus/test_recovering_bus.py", "test_the_fourth_time_ends_it"),
    )
    yield Row(
        "B4",
        "nothing is heard",
        "BUS_SILENT within a second; nothing was sent",
        _in("unit/gateway/test_plan.py", "TestListen::test_silence")
        + _in("unit/cli/test_upgrade.py", "test_a_silent_bus"),
    )
    yield Row(
        "B5-B8",
        "a frame is lost, duplicated, swapped with the next, or changed past CAN's CRC",
        "retried or ended cleanly; an image is never wrong and nothing is written twice",
        _in(
            _FRAME_FAULTS,
            "test_one_bad_diagnostic_frame_does_no_harm",
            "test_many_bad_frames_do_no_harm",
            "test_a_data_frame_that_is_changed_unseen_never_becomes_an_image",
            "test_a_bus_on_which_every_tenth_frame_is_lost_ends_in_a_defined_state",
        )
        + _in("campaign/test_every_frame.py", "test_every_frame"),
    )
    yield Row(
        "B9",
        "frames that waited in a queue arrive late",
        "freshness counts by counter and by when it was heard, and a notice is as old as the poll it answers",
        _in(
            "unit/gateway/test_hv_gate.py",
            "TestTokens::test_a_late_answer_is_as_old_as_its_question",
            "TestQueued::test_a_burst_counts_as_one",
            "TestQueued::test_the_first_of_a_burst_makes_the_evidence_no_newer_than_it_is",
        )
        + _in("unit/bus/test_station.py", "test_a_repeated_frame_is_rejected")
        + _in(
            "unit/sim/test_hv_evidence.py",
            "test_evidence_that_nobody_looked_at_is_old",
            "test_statuses_that_come_at_once_prove_nothing_later_either",
        )
        + _in("scenario/test_queued_evidence.py", "test_a_burst_of_old_statuses_is_no_settling_time"),
    )
    yield Row(
        "B10",
        "a node of high priority floods the bus",
        "refused before anything is erased; a pause if it begins later",
        _in(
            "scenario/test_plant_faults.py",
            "test_a_flooded_bus_is_refused_before_anything_is_sent",
            "test_a_bus_that_is_flooded_for_a_while_is_a_pause",
            "test_a_bus_that_is_flooded_meanwhile_pauses_and_aborts_with_nothing_activated",
        )
        + _in("unit/gateway/test_policy.py", "test_too_much_load_of_others_refuses")
        + _in("unit/gateway/test_doctor_plant.py", "test_a_busy_bus"),
    )
    yield Row(
        "B11",
        "our own stream fills the bus",
        "a safety frame waits for one frame in arbitration and for two in our queue at most; the load can be capped",
        _in(
            "scenario/test_safety_latency.py",
            "test_a_rack_waits_for_the_frame_that_is_on_the_wire",
            "test_our_own_order_waits_for_two_at_most",
        )
        + _in("scenario/test_bus_load.py", "test_an_upgrade_under_a_cap"),
    )
    yield Row(
        "B12",
        "the driver's queue is full (ENOBUFS, EAGAIN)",
        "back-pressure, nothing lost, a bounded wait",
        _in(
            _ADAPTER,
            "test_a_full_driver_queue_delays_frames_and_loses_none",
            "test_a_queue_that_stays_full_is_reported_and_its_stale_frames_are_dropped",
        )
        + _in("unit/bus/test_socketcan.py", "test_a_full_queue_is_back_pressure"),
    )
    yield Row(
        "B13",
        "the adapter is unplugged",
        "ADAPTER_LOST; the plant stays safe by its own time-outs, and the next run resumes",
        _in(
            _INTERRUPTIONS,
            "test_an_adapter_unplugged_in_any_phase_never_closes_anything",
            "test_a_gateway_that_is_gone_leaves_the_plant_locked_and_another_run_resumes",
        )
        + _in("scenario/test_slcan.py", "test_an_adapter_that_is_pulled_in_the_middle_of_the_transfer"),
    )
    yield Row(
        "B14",
        "the bit rate is wrong",
        "we listen first and send nothing: NO_VALID_TRAFFIC or BUS_SILENT",
        _in("unit/gateway/test_plan.py", "TestListen::test_strange_frames_only")
        + _in("scenario/test_slcan.py", "test_at_another_bit_rate_nothing_is_heard_and_nothing_is_said"),
    )
    yield Row(
        "B15",
        "somebody sends on an identifier of ours",
        "ID_CONFLICT, and the upgrade ends",
        _in(_INTERRUPTIONS, "test_one_frame_that_only_we_should_send_ends_it")
        + _in("unit/gateway/test_watch.py", "test_any_frame_that_only_we_should_send_ends_it"),
    )
    yield Row(
        "B16",
        "frames of a wrong length, remote, extended or FD frames",
        "ignored and counted",
        _in("property/test_signals.py", "test_any_frame_is_decoded_or_counted")
        + _in("unit/bus/test_station.py", "test_frames_of_another_shape_are_undecodable_not_evidence")
        + _in(_RECEIVER, "test_foreign_frames_are_ignored_and_counted"),
    )
    yield Row(
        "B17",
        "the plant runs with another DBC",
        "its fingerprint differs: DBC_MISMATCH, refused",
        _in("unit/gateway/test_policy.py", "test_each_refusal_has_its_name_and_comes_alone")
        + _in("unit/gateway/test_plan.py", "TestIdentify::test_another_dbc")
        + _in("unit/signals/test_dbc.py", "test_another_dbc_has_another_fingerprint"),
    )


def _isotp() -> Iterator[Row]:
    yield Row(
        "T1",
        "no flow control after a first frame",
        "N_TIMEOUT_BS as an error, never success",
        _in(_SENDER, "test_n_timeout_bs_without_flow_control", "test_n_timeout_bs_at_the_end_of_a_block")
        + _in("unit/bus/test_isotp_channel.py", "test_n_timeout_bs_is_raised"),
    )
    yield Row(
        "T2",
        "no consecutive frame after a flow control",
        "N_TIMEOUT_CR, after the first one and after every later one",
        _in(
            "regression/test_isotp.py",
            "test_python_can_isotp_41_no_time_out_for_the_first_consecutive_frame",
            "test_python_can_isotp_63_no_time_out_after_a_later_flow_control",
        )
        + _in(_RECEIVER, "test_n_timeout_cr_after_the_first_flow_control"),
    )
    yield Row(
        "T3",
        "a frame of ours is not confirmed",
        "N_TIMEOUT_A",
        _in(_SENDER, "test_n_timeout_a_without_confirmation")
        + _in(_RECEIVER, "test_n_timeout_a_when_flow_control_is_not_confirmed"),
    )
    yield Row(
        "T4",
        "a wrong sequence number",
        "N_WRONG_SN, and nothing of the message is delivered",
        _in(_RECEIVER, "test_wrong_sequence_number_ends_reception_without_delivery")
        + _in("property/test_isotp_machine.py", "TestIsoTpMachine"),
    )
    yield Row(
        "T5",
        "the receiver has no room",
        "N_BUFFER_OVFLW; once, a block of half the size",
        _in(_SENDER, "test_flow_control_overflow")
        + _in(
            _NODE_CLIENT,
            "test_t5_a_block_without_room_is_halved_once",
            "test_t5_a_repeated_block_is_never_made_smaller",
        ),
    )
    yield Row(
        "T6",
        "endless requests to wait",
        "N_WFT_OVRN at the limit",
        _in(_SENDER, "test_n_wft_ovrn_stops_endless_waiting", "test_continue_to_send_ends_the_row_of_waits"),
    )
    yield Row("T7", "an invalid flow status", "N_INVALID_FS", _in(_SENDER, "test_invalid_flow_status"))
    yield Row(
        "T8",
        "a reserved separation time",
        "taken as 127 ms, for every one of the 256 values",
        _in("unit/isotp/test_pci.py", "test_every_st_min_value"),
    )
    yield Row(
        "T9",
        "a new message while one is received",
        "the old one ends and is reported, the new one is taken",
        _in(
            _RECEIVER,
            "test_a_single_frame_ends_reception_and_is_accepted",
            "test_a_first_frame_ends_reception_and_is_accepted",
        ),
    )
    yield Row(
        "T10",
        "consecutive frames and flow controls that nobody asked for",
        "ignored",
        _in(_SENDER, "test_unsolicited_flow_control_is_ignored")
        + _in("unit/isotp/test_endpoint.py", "test_random_frames_never_raise_and_are_accounted_for"),
    )
    yield Row(
        "T11",
        "an announced length below 8, beyond the buffer, or of 4 GiB",
        "ignored or answered with overflow; nothing is allocated",
        _in("unit/isotp/test_pci.py", "test_decode_first_frame")
        + _in(
            _RECEIVER,
            "test_a_message_beyond_the_buffer_is_answered_with_overflow_and_nothing_is_allocated",
            "test_a_huge_announcement_within_the_limit_allocates_nothing",
        ),
    )
    yield Row(
        "T12",
        "a single frame of length 0, beyond 7, or shorter than it says",
        "ignored",
        _in("unit/isotp/test_pci.py", "test_decode_single_frame"),
    )
    yield Row(
        "T13",
        "a changing block size, odd padding",
        "the message arrives whole",
        _in(_SENDER, "test_block_size_may_change_with_every_flow_control")
        + _in(_RECEIVER, "test_the_last_frame_may_have_any_padding"),
    )
    yield Row(
        "T14",
        "sequence number and block counter wrap",
        "correct over the wrap",
        _in(_SENDER, "test_sequence_numbers_and_block_counter_wrap")
        + _in(_PROGRAMMING, "test_t14_the_block_counter_wraps"),
    )
    yield Row(
        "T15",
        "a flow control from another identifier",
        "ignored",
        _in(_SENDER, "test_flow_control_from_the_wrong_identifier_is_ignored"),
    )
    yield Row(
        "T16",
        "a peer that just meets every time-out",
        "a minimum rate and a total deadline: ISO_TP_TOO_SLOW",
        _in(
            _SENDER,
            "test_too_slow_when_every_time_out_is_just_met",
            "test_the_minimum_rate_has_its_own_deadline",
            "test_the_slowest_pace_of_the_standard_is_not_too_slow",
        )
        + _in(_RECEIVER, "test_too_slow_when_every_time_out_is_just_met"),
    )


def _uds() -> Iterator[Row]:
    yield Row(
        "U1",
        "a node asks for more time (78), again and again",
        "each extends the wait to P2*, and their number and the total time are capped",
        _in(
            _CLIENT,
            "test_u1_78_extends_to_p2_star",
            "test_u1_the_total_time_is_capped",
            "test_u1_the_number_of_78_is_capped",
        ),
    )
    yield Row(
        "U2",
        "an answer is lost and TransferData repeated",
        "answered positively with the same counter, and not written again",
        _in(_PROGRAMMING, "test_u2_a_repeated_block_is_answered_and_not_written_again")
        + _in(_NODE_CLIENT, "test_u2_a_block_whose_answer_was_lost_is_repeated_and_not_written_twice"),
    )
    yield Row(
        "U3",
        "a wrong block counter",
        "NRC 73, and nothing is written",
        _in(_PROGRAMMING, "test_u3_a_wrong_block_counter_writes_nothing")
        + _in("property/test_uds_server_machine.py", "TestUdsServer"),
    )
    yield Row(
        "U4",
        "the session times out (S3)",
        "the node locks itself; going on needs authentication and the HV-off proof again",
        _in(
            _SERVER,
            "test_u4_s3_ends_the_session_locks_and_leaves_the_download_resumable",
            "test_u4_s3_is_judged_before_a_request_that_comes_late",
        )
        + _in(_PROGRAMMING, "test_a_download_resumes_where_it_stood_after_authentication"),
    )
    yield Row(
        "U5",
        "services out of order",
        "NRC 24 or 7F, and no change",
        _in(_PROGRAMMING, "test_u5_services_out_of_order_are_refused_and_change_nothing")
        + _in("property/test_uds_server_machine.py", "TestUdsServer"),
    )
    yield Row(
        "U6",
        "erase or download while high voltage is on",
        "the node itself answers NRC 22",
        _in(
            _DIRECT,
            "test_with_high_voltage_on_a_node_refuses_to_be_programmed",
            "test_a_node_in_programming_session_refuses_as_soon_as_high_voltage_returns",
        ),
    )
    yield Row(
        "U7",
        "a node resets in mid-transfer",
        "it is identified again and the transfer resumes",
        _in(_INTERRUPTIONS, "test_a_node_that_resets_in_mid_transfer_is_resumed_and_not_erased_again")
        + _in(_NODE_UPGRADE, "TestConfirm::test_a_node_that_restarted_meanwhile_is_not_confirmed"),
    )
    yield Row(
        "U8",
        "another node answers than the one that is meant",
        "WRONG_TARGET by serial number, hardware and type; it is not touched",
        _in(_NODE_CLIENT, "test_u8_another_node_than_the_one_meant")
        + _in(_NODE_UPGRADE, "TestProgram::test_another_node_than_the_one_planned_is_not_touched")
        + _in(_HOSTILE, "test_u8_board_exchanged_between_check_and_programming"),
    )
    yield Row(
        "U9",
        "somebody guesses keys",
        "NRC 36, then 37; the delay survives a reset",
        _in(_ACCESS, "test_u9_count_and_delay_survive_a_reset_and_the_delay_runs_again_in_full")
        + _in(_DIRECT, "test_guessing_keys_is_stopped_and_a_restart_does_not_help"),
    )
    yield Row(
        "U10",
        "a recorded key is sent again",
        "a challenge has 128 bits and serves once",
        _in(
            _ACCESS,
            "test_u10_a_challenge_has_128_bits_and_serves_for_one_key",
            "test_u10_a_recorded_key_does_not_fit_the_next_challenge",
        )
        + _in("unit/sim/test_plant.py", "test_challenges_differ_from_start_to_start"),
    )
    yield Row(
        "U11",
        "an address or length outside the bank",
        "NRC 31",
        _in(_PROGRAMMING, "test_u11_download_requests_that_make_no_sense")
        + _in(_MEMORY, "test_an_announcement_of_a_size_that_does_not_fit"),
    )
    yield Row(
        "U12",
        "more or less data than was announced",
        "NRC 71 or 24, and the exit is refused",
        _in(
            _PROGRAMMING,
            "test_u12_less_data_than_announced_refuses_the_exit",
            "test_u12_more_data_than_announced_suspends_the_download",
        ),
    )
    yield Row(
        "U13",
        "a second tester asks meanwhile",
        "busy at the node; the gateway refuses to start beside it, and ends if it appears",
        _in(_SERVER, "test_requests_during_an_operation_are_busy_but_tester_present_is_not")
        + _in("unit/gateway/test_station_master.py", "test_a_second_tester_is_refused_whoever_speaks_isotp")
        + _in(_HOSTILE, "test_u13_second_tester_writes_nothing"),
    )
    yield Row(
        "U14",
        "a late answer to the request before",
        "not taken for the answer to this one",
        _in(_CLIENT, "test_u14_a_late_answer_to_another_request_is_ignored_and_counted")
        + _in(
            _NODE_CLIENT,
            "test_u14_a_late_answer_does_not_fit_the_next_request",
            "test_u14_a_challenge_that_comes_late_is_taken_before_another_is_asked_for",
            "test_u14_a_challenge_that_is_taken_for_the_next_one_costs_a_wrong_key_and_no_more",
            "test_u14_every_answer_may_be_late_and_overtaken",
        ),
    )
    yield Row(
        "U15",
        "the transfer's end without a memory check",
        "cannot be activated",
        _in(
            _PROGRAMMING,
            "test_u15_no_activation_before_the_memory_check_or_after_a_change",
            "test_u15_a_failed_memory_check_takes_a_former_one_back",
        ),
    )


def _flash() -> Iterator[Row]:
    yield Row(
        "F1",
        "power is lost at any operation of flash or records",
        "the old image boots, or the new one once it is confirmed",
        _in(_CUTS, "test_power_is_cut_at_every_operation", "test_a_transfer_consists_of_the_writes_that_are_to_be_cut")
        + _in(_MCUBOOT, "test_mcuboot_1588_power_lost_while_images_are_moved"),
    )
    yield Row(
        "F2",
        "a write is torn: a prefix of it, some of its bits",
        "found by reading back and by the hash; the old image boots",
        _in(_CUTS, "test_power_is_cut_at_every_operation")
        + _in(
            _FLASH,
            "test_power_loss_in_programming_leaves_a_prefix_and_one_torn_unit",
            "test_an_unreadable_unit_reads_with_an_ecc_error_and_its_neighbours_do_not",
        ),
    )
    yield Row(
        "F3",
        "an erase is cut off, cells read unstably",
        "the sector counts as dirty and is erased again",
        _in(_FLASH, "test_power_loss_in_erasing_leaves_a_dirty_sector")
        + _in(_MEMORY, "test_power_loss_while_erasing_ahead")
        + _in("campaign/test_flash_cuts.py", "test_power_is_cut_at_every_operation"),
    )
    yield Row(
        "F4",
        "a boot record is torn",
        "two copies with sequence number and CRC; the newest valid one counts, after a cut at any byte",
        _in(
            _RECORDS,
            "test_a_write_torn_at_any_byte_leaves_old_or_new",
            "test_a_damaged_newest_slot_falls_back_to_the_older_one",
        )
        + _in(_MCUBOOT, "test_mcuboot_1966_torn_magic_during_revert"),
    )
    yield Row(
        "F5",
        "power is lost again while a node recovers",
        "the same, for every pair of cuts",
        _in("campaign/test_pairs.py", "test_power_is_cut_twice")
        + _in("property/test_every_death.py", "test_death_again_while_it_recovers"),
    )
    yield Row(
        "F6",
        "power is lost between activation and first boot",
        "one trial, then back",
        _in(_CUTS, "test_power_is_cut_at_every_operation")
        + _in(_BOOTLOADER, "test_an_unconfirmed_image_boots_as_often_as_it_has_tries"),
    )
    yield Row(
        "F7",
        "the new image hangs or restarts for ever",
        "watchdog, a bounded number of tries, rollback",
        _in("unit/sim/test_node.py", "test_an_image_that_hangs_is_given_up_by_the_watchdog")
        + _in(_BAD_FIRMWARE, "test_bad_firmware_is_reverted_everywhere_and_the_plant_given_back"),
    )
    yield Row(
        "F8",
        "the new image boots, but sends no HV status",
        "not confirmed, rollback",
        _in(_BAD_FIRMWARE, "test_bad_firmware_is_reverted_everywhere_and_the_plant_given_back")
        + _in(
            _UPGRADE,
            "TestAfterActivation::test_a_rack_whose_new_firmware_does_not_measure_rolls_back",
        ),
    )
    yield Row(
        "F9, F10",
        "power is lost while confirming, or while going back",
        "the old image or the new one, never anything else; it converges",
        _in(
            _MCUBOOT,
            "test_mcuboot_480_interrupted_revert_is_not_swapped_back",
            "test_mcuboot_829_reset_during_swap_of_a_node_never_upgraded_before",
        )
        + _in(_CUTS, "test_power_is_cut_at_every_operation"),
    )
    yield Row(
        "F11",
        "a worn or bad sector",
        "FLASH_WRITE_FAILED; the old image stays",
        _in(
            _INTERRUPTIONS,
            "test_a_bad_sector_is_reported_and_the_old_image_stays",
            "test_a_sector_that_loses_bits_silently_is_found_by_reading_back",
        )
        + _in(_FLASH, "test_a_worn_sector_fails_to_erase"),
    )
    yield Row(
        "F12",
        "an ECC error in the inactive bank at boot",
        "the old image boots, and an upgrade erases it",
        _in(_MCUBOOT, "test_mcuboot_2832_ecc_error_in_the_other_slot"),
    )
    yield Row(
        "F13",
        "bit rot in the active bank",
        "the other bank's image if it was confirmed and is allowed, else the bootloader alone, which takes an image",
        _in(
            _BOOTLOADER,
            "test_rot_in_the_active_bank_boots_the_other_confirmed_image",
            "test_the_fallback_must_not_be_below_the_security_counter",
        )
        + _in(
            _MEMORY,
            "test_a_node_in_recovery_takes_an_image",
            "test_after_a_fallback_the_rotten_bank_is_the_one_that_is_programmed",
        ),
    )
    yield Row(
        "F14",
        "an older, longer image leaves its end behind the new one",
        "the whole slot is erased, and no byte outside the signature is run",
        _in(_MEMORY, "test_what_is_behind_the_image_is_erased_before_the_image_is_complete")
        + _in(_MCUBOOT, "test_mcuboot_1894_bytes_that_an_older_image_left_behind"),
    )
    yield Row(
        "F15",
        "a write to the running bank",
        "refused by the flash itself",
        _in(_MCUBOOT, "test_mcuboot_1588_power_lost_while_images_are_moved")
        + _in("property/test_flash_boot_machine.py", "TestNodeMemory"),
    )
    yield Row(
        "F16",
        "the security counter is raised before the confirmation",
        "it rises with the confirmation, in the same record",
        _in(_BOOTLOADER, "test_confirm_is_one_record_and_raises_the_counter")
        + _in(_CUTS, "test_power_is_cut_at_every_operation"),
    )
    yield Row(
        "F17",
        "the image changes between check and boot",
        "what is booted is what was hashed at that boot",
        _in(
            _UPDATERS,
            "test_espressif_cve_2024_28183_image_exchanged_after_the_rollback_check",
            "test_espressif_cve_2024_28183_image_exchanged_after_confirmation",
        ),
    )
    yield Row(
        "F18",
        "an erase takes longer than watchdog or session",
        "answers with 78 hold the session; erasing does not hold up the node's main loop",
        _in(
            _SERVER,
            "test_f18_an_operation_outlasts_s3_without_ending_the_session",
            "test_u1_a_long_operation_answers_78_inside_p2_and_then_inside_p2_star",
        )
        + _in(_NODE_CLIENT, "test_u1_a_node_that_erases_first_is_waited_for"),
    )


def _hv() -> Iterator[Row]:
    yield Row(
        "H1",
        "the PCS ignores the order to ramp down",
        "PCS_NOT_STOPPING; nothing is opened, nothing upgraded",
        _in(_HIGH_VOLTAGE, "test_a_pcs_that_ignores_the_ramp_is_not_opened_and_gets_the_plant_back")
        + _in(_HV_CONTROL, "test_refuses_to_open_while_a_pcs_ignores_the_ramp"),
    )
    yield Row(
        "H2",
        "the current is not near zero",
        "no contactor is ordered open, and no rack opens",
        _in("unit/gateway/test_isolation.py", "test_contactors_are_never_ordered_open_under_load")
        + _in(_HV_CONTROL, "test_current_not_near_zero_is_never_broken_by_order")
        + _in(_PLANTS, "test_battery_emulator_2489_contactors_opened_under_load_by_an_update"),
    )
    yield Row(
        "H3",
        "the PCS's current sensor sticks at zero",
        "the racks' own currents must agree: CURRENT_MISMATCH",
        _in(_HIGH_VOLTAGE, "test_a_current_sensor_that_sticks_at_zero_during_the_ramp_opens_nothing"),
    )
    yield Row(
        "H4",
        "a contactor is welded, plus or minus, in any rack",
        "CONTACTOR_WELDED; latched until a person who gives a name clears it",
        _in(_HIGH_VOLTAGE, "test_a_contactor_that_welds_at_opening_is_found_and_latched")
        + _in(_HV_EVIDENCE, "test_a_welded_pole_is_found_by_feedback_or_by_voltage_and_latched")
        + _in(_HV_CONTROL, "test_only_a_named_person_clears_latches_and_a_present_cause_latches_again"),
    )
    yield Row(
        "H5",
        "a contactor's feedback contradicts the voltage",
        "the worse of the two counts",
        _in(
            _HV_EVIDENCE,
            "test_both_poles_welded_with_lying_feedback_are_found_by_their_current",
            "test_a_feedback_that_lies_closed_counts_as_a_weld",
        ),
    )
    yield Row(
        "H6",
        "the link stays above 60 V",
        "DISCHARGE_TIMEOUT; held open",
        _in(_HIGH_VOLTAGE, "test_a_link_that_does_not_discharge_is_held_open"),
    )
    yield Row(
        "H7",
        "a voltage is invalid, or does not change any more",
        "invalid is not 0 V, and a frozen value proves nothing",
        _in(_HIGH_VOLTAGE, "test_a_frozen_link_sensor_is_never_read_as_discharged")
        + _in(
            _HV_EVIDENCE,
            "test_an_invalid_reading_is_not_zero",
            "test_a_frozen_link_voltage_never_becomes_off",
        ),
    )
    yield Row(
        "H8",
        "the HV status is lost or bad while flash is written",
        "the permit ends, the work pauses and goes on once proved again, or is given up after a limit",
        _in(
            _HIGH_VOLTAGE,
            "test_status_lost_for_a_second_pauses_and_resumes",
            "test_status_lost_for_ever_aborts",
            "test_one_corrupted_status_revokes_the_permit_and_the_work_is_resumed",
        ),
    )
    yield Row(
        "H9",
        "high voltage closes while flash is written",
        "from the first proof on the upgrade ends, with a permit or without, is told, and nothing is written, activated"
        " or restarted after it; the node itself stops its flash work",
        _in(
            _HIGH_VOLTAGE,
            "test_high_voltage_that_comes_back_at_any_moment_after_the_proof_ends_it_for_good",
            "test_a_rack_closed_by_hand_ends_the_upgrade_for_good",
            "test_a_link_energised_from_outside_stops_all_flash_work",
        )
        + _in(
            "unit/gateway/test_interlock.py",
            "test_once_proved_off_whatever_says_on_is_told_with_the_first_status_permit_or_not",
            "test_what_is_invalid_or_under_way_says_nothing_of_on",
            "test_neither_silence_nor_a_failed_check_says_on",
        ),
        open="what comes and goes between two statuses, or while every rack restarts, is not seen by the gateway",
    )
    yield Row(
        "H10",
        "the gateway's heartbeat is lost",
        "the PCS stays in standby and locked; the racks stay as they are or open",
        _in(
            "unit/sim/test_pcs.py",
            "test_lock_survives_a_lost_heartbeat_and_nothing_closes",
            "test_lost_heartbeat_ramps_to_zero_and_a_new_order_ends_it",
        )
        + _in("property/test_hv.py", "test_a_lost_heartbeat_never_closes")
        + _in(_INTERRUPTIONS, "test_a_gateway_that_is_gone_leaves_the_plant_locked_and_another_run_resumes"),
    )
    yield Row(
        "H11",
        "the PCS restarts",
        "its lost lock is seen; it is locked and proved again",
        _in(_HIGH_VOLTAGE, "test_a_pcs_that_restarts_loses_its_lock_and_is_locked_again")
        + _in(_HV_CONTROL, "test_a_restarted_pcs_is_seen_unlocked_and_proved_again"),
    )
    yield Row(
        "H12",
        "emergency stop, insulation fault, fire, open HV interlock loop",
        "the upgrade, or its rollback, ends within 200 ms from any step, and nothing reconnects by itself",
        _in(
            "scenario/test_plant_faults.py",
            "test_an_emergency_at_any_moment_ends_it_within_200_ms_and_is_never_reconnected",
            "test_an_emergency_stop_in_every_kind_of_rollback",
            "test_an_emergency_does_not_wait_for_a_node_that_died_in_the_rollback",
            "test_an_emergency_in_the_check_before_a_second_attempt_is_a_refusal",
        )
        + _in(
            _HIGH_VOLTAGE,
            "test_an_emergency_in_mid_transfer_ends_the_upgrade_within_200_ms",
            "test_an_emergency_in_any_phase_is_never_reconnected",
        ),
    )
    yield Row(
        "H13",
        "auxiliary supply or state of charge too low",
        "refused before anything is erased",
        _in(_REFUSALS, "test_refused_without_a_trace")
        + _in("unit/gateway/test_policy.py", "test_each_refusal_has_its_name_and_comes_alone"),
    )
    yield Row(
        "H14",
        "a rack is silent while it restarts, as announced",
        "its silence is not read as off, and the PCS stays locked",
        _in(_PLANTS, "test_opentrons_14431_restarting_node_is_not_taken_for_absent")
        + _in(_GOOD_PATH, "test_the_notice_announces_every_silence")
        + _in("property/test_hv_gate.py", "test_silence_is_never_off"),
    )
    yield Row(
        "H15",
        "the precharge fails",
        "open again, a bounded number of tries with a pause between them, then PRECHARGE_FAILED",
        _in(_HV_CONTROL, "test_failing_precharge_is_tried_three_times_with_cool_down_then_latched")
        + _in(_HIGH_VOLTAGE, "test_a_rack_that_cannot_precharge_is_held_open_with_its_new_firmware"),
    )
    yield Row(
        "H16",
        "the strings' voltages are too far apart",
        "the second rack does not close",
        _in(_HV_CONTROL, "test_string_voltages_too_far_apart_keep_the_second_rack_open"),
    )
    yield Row(
        "H17",
        "reconnecting with an image that is not confirmed",
        "forbidden, to gateway and rack alike",
        _in(
            _UPGRADE,
            "TestAfterActivation::test_an_unconfirmed_image_found_at_the_end_is_never_reconnected",
        )
        + _in("unit/sim/test_node.py", "test_an_image_on_trial_runs_holds_open_and_goes_back_by_itself")
        + _in(_HV_CONTROL, "test_held_open_refuses_closing"),
    )
    yield Row(
        "H18",
        "the new firmware measures with another scale",
        "compared with what was measured before: rollback",
        _in(_BAD_FIRMWARE, "test_bad_firmware_is_reverted_everywhere_and_the_plant_given_back")
        + _in("unit/gateway/test_plant_view.py", "test_a_value_that_jumped_fails_the_trial"),
    )
    yield Row(
        "H19",
        "a grid service is active",
        "DISPATCH_ACTIVE",
        _in(_REFUSALS, "test_refused_without_a_trace"),
    )
    yield Row(
        "H20",
        "cells are out of their limits",
        "refused",
        _in(_REFUSALS, "test_refused_without_a_trace")
        + _in("unit/gateway/test_policy.py", "test_the_limits_themselves_are_allowed"),
    )
    yield Row(
        "H21",
        "racks are left on different versions",
        "high voltage stays open",
        _in(_BAD_FIRMWARE, "test_a_mixed_plant_is_never_closed")
        + _in("unit/gateway/test_policy.py", "test_racks_on_different_versions_are_never_reconnected"),
    )


def _gateway() -> Iterator[Row]:
    yield Row(
        "G1",
        "the gateway is killed at any moment",
        "resumed or rolled back; no step is lost or done twice; everything is proved again",
        _in(_INTERRUPTIONS, "test_a_gateway_that_is_gone_leaves_the_plant_locked_and_another_run_resumes")
        + _in(
            "scenario/test_killed_plant.py",
            "test_killed_in_mid_transfer_it_boots_what_it_ran_and_takes_another_upgrade",
        )
        + _in("scenario/test_resume.py", "test_killed_after_each_entry_of_the_journal_and_resumed")
        + _in(
            "campaign/test_every_kill.py",
            "test_killed_at_every_entry_of_the_journal",
            "test_killed_at_every_step",
        )
        + _in("campaign/test_system_cuts.py", "test_every_operation")
        + _in("campaign/test_real_kills.py", "test_whatever_is_killed_the_upgrade_is_done_in_the_end"),
    )
    yield Row(
        "G2",
        "power is lost, and the journal's log is torn at any byte",
        "what is read is a prefix of what was written",
        _in(
            "campaign/test_wal.py",
            "test_the_log_cut_at_every_byte_of_the_last_transaction",
            "test_every_byte_of_the_last_transaction_wrong",
        )
        + _in(_JOURNAL, "test_what_is_written_is_on_the_disk_before_the_call_returns"),
    )
    yield Row(
        "G3",
        "the disk is full",
        "found before the start; later a safe end",
        _in(
            _JOURNAL_DISK,
            "test_a_full_disk_shows_before_anything_starts",
            "test_a_disk_that_fills_up_on_the_way",
        )
        + _in("unit/cli/test_image.py", "test_no_room_for_the_private_copy")
        + _in("unit/cli/test_trace_file.py", "test_a_disk_that_fills_up_does_not_end_the_upgrade"),
    )
    yield Row(
        "G4, G5",
        "a write does not reach the disk; the database is damaged",
        "stopped, or refused with the way to recover; the plant is left safe",
        _in(_JOURNAL_DISK, "test_a_write_that_fails_is_the_last", "test_something_else_in_its_place")
        + _in("campaign/test_journal_damage.py", "test_damaged_at_random")
        + _in("unit/journal/test_schema.py", "test_a_page_that_is_not_whole_is_found_before_it_is_used"),
    )
    yield Row(
        "G6, G7",
        "the wall clock jumps; the machine sleeps",
        "deadlines do not follow the wall clock, and every permit is stale on waking",
        _in(
            "scenario/test_wall_clock.py",
            "test_in_the_middle_of_an_upgrade",
            "test_back_and_forth_in_every_phase",
            "test_between_two_runs",
        )
        + _in(_JOURNAL, "test_a_wall_clock_that_jumps_harms_nothing")
        + _in(
            _INTERLOCK,
            "test_a_sleep_of_the_machine_ends_every_permit",
            "test_after_a_sleep_a_frame_asks_before_any_timer_looked",
        ),
    )
    yield Row(
        "G8",
        "two commands at once",
        "the second is LOCKED, and told by whom; the lock dies with its process",
        _in(
            "unit/journal/test_lock.py",
            "test_the_second_is_told_who_has_it",
            "test_a_lock_dies_with_its_process_and_what_it_wrote_stays",
        ),
    )
    yield Row(
        "G9",
        "two gateways on one plant",
        "OTHER_GATEWAY or ID_CONFLICT; never do both change it",
        _in(
            _TWO_GATEWAYS,
            "test_at_the_same_instant_one_at_most_goes_on",
            "test_who_comes_later_is_refused_and_does_not_disturb_the_other",
        )
        + _in(_INTERRUPTIONS, "test_a_second_gateway_in_mid_upgrade_ends_it")
        + _in(_INTERRUPTIONS, "test_another_master_in_mid_upgrade_ends_it_and_the_bmus_hold_open"),
    )
    yield Row(
        "G10",
        "the upgrade file is replaced meanwhile",
        "a private copy is what was checked, and what is sent",
        _in(_UPDATERS, "test_rauc_cve_2020_25860_file_changed_between_check_and_use")
        + _in(_VERIFY, "test_the_file_changes_while_it_is_read"),
    )
    yield Row(
        "G11, G12",
        "the loop is starved; anything raises anywhere",
        "paused, not unsafe; the plant is always put back",
        _in(
            _INTERLOCK,
            "test_a_starved_loop_asks_before_a_frame_and_what_waited_in_queues_does_not_count",
        )
        + _in(
            _UPGRADE,
            "TestOurOwnDefects::test_an_internal_error_still_puts_the_plant_back",
            "TestOurOwnDefects::test_an_internal_error_while_rolling_back_holds_the_plant_open",
        ),
    )
    yield Row(
        "G13",
        "Ctrl-C, SIGTERM, the end of the terminal; nobody reads the output any more",
        "the step under way is finished, the plant is put back, the command to go on with is said; "
        "a closed output stops nothing",
        _in(_INTERRUPTIONS, "test_an_interrupted_upgrade_puts_the_plant_back")
        + _in(
            "unit/cli/test_upgrade.py",
            "test_a_signal_gives_the_plant_back_and_says_what_to_type",
            "test_a_signal_ends_the_demo_and_a_resume_the_same_way",
            "test_a_closed_output_does_not_stop_an_upgrade",
        )
        + _in(
            "unit/cli/test_stop_signals.py",
            "test_a_signal_stops_the_upgrade_and_another_one_does_not_break_off_the_putting_back",
        ),
    )
    yield Row(
        "G14, G15",
        "a journal of another version; a disk that cannot be written",
        "migrated or refused; no record, no upgrade",
        _in(
            "unit/journal/test_schema.py",
            "test_an_older_one_is_brought_to_the_newest_with_all_it_has",
            "test_one_of_a_newer_version_is_refused_and_left_as_it_is",
        )
        + _in(_JOURNAL_DISK, "test_a_directory_that_cannot_be"),
    )


def _attacks() -> Iterator[Row]:
    yield Row(
        "P1",
        "arbitrary software",
        "signed over hash and length of all of it, checked by the gateway and again by the node",
        _in("campaign/test_fuzz.py", "test_every_flipped_bit_of_a_signed_file_is_found")
        + _in("unit/sim/test_image_verdict.py", "test_each_check_has_its_reason"),
    )
    yield Row(
        "P2, P3",
        "rollback to an older image; rollback by a reset after the erase",
        "a counter in the node that only rises, only with a confirmation, and is checked at every boot",
        _in(_MCUBOOT, "test_mcuboot_pr_628_rollback_by_a_reset_after_erase")
        + _in(_BOOTLOADER, "test_a_trial_below_the_security_counter_does_not_boot")
        + _in(_COMPATIBILITY, "test_refusals"),
    )
    yield Row(
        "P4, P5",
        "freeze: an old release is offered for ever; fast-forward: one that uses up all numbers",
        "a signed date of expiry; nothing older than what a node runs; the counter rises by a bounded step",
        _in(_VERIFY, "test_expiry_counts_only_when_the_date_is_known")
        + _in(_COMPATIBILITY, "test_refusals", "test_the_counter_rises_by_a_bounded_step"),
        open=(
            "the gateway remembers no release that it has seen: nodes remember those that they confirmed, and one that "
            "failed on its trial must not lock out an older good one"
        ),
    )
    yield Row(
        "P6, P7",
        "requests are dropped, or served as slowly as allowed",
        "told as an error, and the old version runs",
        _in(_HIGH_VOLTAGE, "test_status_lost_for_ever_aborts")
        + _in(_SENDER, "test_too_slow_when_every_time_out_is_just_met")
        + _in(_HOSTILE, "test_p6_node_that_is_cut_off_from_the_gateway"),
    )
    yield Row(
        "P8",
        "endless data",
        "signed lengths, hard limits, nothing is held in memory; there is no compression",
        _in("unit/image/test_files.py", "TestBothWays::test_a_huge_sparse_file_is_not_read")
        + _in("scenario/test_memory.py", "test_verifying_a_file_takes_no_more_memory_for_a_larger_one")
        + _in(_UPDATERS, "test_rauc_cve_2026_34155_announced_beyond_two_gib"),
    )
    yield Row(
        "P9, P10",
        "images of different releases are put together; a set that does not fit the plant",
        "one signed set, with what each image needs of the others",
        _in(_KEYS, "test_p9_images_of_two_releases_put_together", "test_p10_set_that_needs_what_does_not_run")
        + _in(_COMPATIBILITY, "test_dependencies"),
    )
    yield Row(
        "P12, P13",
        "an image for another product or hardware",
        "signed ids of type and hardware, checked by gateway and node (there are no delta images)",
        _in(_COMPATIBILITY, "test_refusals") + _in("unit/sim/test_image_verdict.py", "test_each_check_has_its_reason"),
    )
    yield Row(
        "P14, P15",
        "a parser is confused: lengths beyond 2 GiB, a key twice, a field outside the signature",
        "strict parsers with limits; nothing that is not signed is read",
        _in(
            _UPGRADE_FILE,
            "test_patched_files_raise_typed_errors_only",
            "test_parsers_raise_typed_errors_only",
            "test_any_json_in_a_manifest_is_read_or_refused",
        )
        + _in("unit/image/test_manifest.py", "test_every_broken_rule_is_found")
        + _in(_MCUBOOT, "test_mcuboot_cve_2024_32883_field_outside_the_signature")
        + _in(_UPDATERS, "test_rauc_cve_2026_34155_file_beyond_two_gib"),
    )
    yield Row(
        "P16",
        "confusion of algorithm or key id",
        "the algorithm belongs to the key, and its id is its hash",
        _in(_KEYS, "test_p16_key_id_of_another_key", "test_p16_algorithm_belongs_to_the_key")
        + _in("unit/trust/test_keys.py", "test_the_id_is_the_hash_of_the_subject_public_key_info"),
    )
    yield Row(
        "P17",
        "a stolen key",
        "several keys may be trusted at once, and one is revoked by not trusting it any more",
        _in(_KEYS, "test_p17_keys_are_rotated_and_revoked", "test_p17_firmware_key_signs_no_release"),
        open="a node's keys are in its ROM: revoking one of them takes new nodes",
    )
    yield Row(
        "P18",
        "a development key in production",
        "keys that are known to be published are refused outside a bench",
        _in(
            _MCUBOOT,
            "test_mcuboot_ghsa_gcxh_546h_phg4_development_keys",
            "test_mcuboot_ghsa_gcxh_546h_phg4_example_keys_of_others",
        ),
    )
    yield Row(
        "P19, P20",
        "frames that say HV off are forged or replayed",
        "a replay does not know the poll's token; a forger is stopped by the node's own proof",
        _in(_HOSTILE, "test_p20_replayed_frames_prove_nothing", "test_p19_forged_frames_fool_the_gateway_not_the_node"),
        open="E2E is no defence against an attacker on the bus: it needs SecOC, or a hard-wired contact",
    )
    yield Row(
        "P22",
        "the record of what was done is edited or cut",
        "its entries are chained by hash, and the head can be kept elsewhere",
        _in(
            "unit/journal/test_audit.py",
            "test_every_column_of_every_entry_edited",
            "test_every_entry_removed",
            "test_an_entry_inserted_anywhere",
            "test_a_tail_that_was_cut_shows_against_a_head_that_was_noted",
        )
        + _in("unit/cli/test_history.py", "test_an_entry_that_was_changed", "test_a_head_noted_earlier"),
        open=(
            "the head is not signed: whoever may write the journal can make the whole chain anew, and a key beside it "
            "would sign that, too; only a head kept elsewhere shows it"
        ),
    )
    yield Row(
        "P25",
        "the secret of service 27 leaks",
        "an answer serves one challenge of one node; high voltage, signature and counter still stand",
        _in(_ACCESS, "test_the_key_of_another_node_does_not_fit")
        + _in(_HOSTILE, "test_p25_whoever_has_the_secret_still_needs_a_signature"),
        open="service 29 with certificates and roles would take its place behind the same interface",
    )


def _operator() -> Iterator[Row]:
    yield Row(
        "O1",
        "the wrong site or rack",
        "serial numbers that are given must match, before anything changes",
        _in(_HOSTILE, "test_o1_serial_number_that_is_not_the_expected_one"),
    )
    yield Row(
        "O2",
        "an upgrade while the plant is needed",
        "refused while a grid service is active; how long it takes and what is lost is told before it starts",
        _in(_REFUSALS, "test_refused_without_a_trace")
        + _in("unit/cli/test_report_text.py", "test_a_dry_run_says_what_to_expect")
        + _in("scenario/test_estimate.py", "test_what_was_expected_happens")
        + _in(
            "unit/gateway/test_losses.py",
            "test_what_is_lost_meanwhile",
            "test_it_is_told_before_anything_is_changed_and_is_on_record",
            "test_a_dry_run_tells_it_too",
        )
        + _in("unit/cli/test_image.py", "test_what_an_upgrade_with_it_costs_is_shown"),
    )
    yield Row(
        "O3",
        "the laptop is closed",
        "the plant is put back or left safe, and the next run resumes",
        _in(_INTERRUPTIONS, "test_a_gateway_that_is_gone_leaves_the_plant_locked_and_another_run_resumes")
        + _in(
            "unit/cli/test_upgrade.py",
            "test_a_signal_gives_the_plant_back_and_says_what_to_type",
        ),
    )
    yield Row(
        "O4",
        "somebody wants to force it",
        "no flag skips a check of high voltage, signature or compatibility",
        _in(_HOSTILE, "test_o4_there_is_no_flag_to_force_it")
        + _in("unit/gateway/test_config_file.py", "test_no_file_can_make_the_proof_of_high_voltage_off_worthless"),
    )
    yield Row(
        "O5",
        "the same version again",
        "nothing to do, exit 0, and flash is not touched",
        _in(_GOOD_PATH, "test_the_same_version_again_does_nothing"),
    )
    yield Row(
        "O6",
        "high voltage is closed by hand meanwhile",
        "as H9",
        _in(
            _HIGH_VOLTAGE,
            "test_high_voltage_that_comes_back_at_any_moment_after_the_proof_ends_it_for_good",
            "test_a_rack_closed_by_hand_ends_the_upgrade_for_good",
        ),
    )
    yield Row(
        "O7",
        "the simulator is started on a real bus",
        "refused without an explicit flag",
        _in("unit/cli/test_virtual_only.py", "test_a_real_link_is_refused_whatever_it_is_called")
        + _in("unit/cli/test_sim.py", "test_a_bus_that_may_be_real_is_refused"),
    )
    yield Row(
        "O9",
        "another try after a weld lock-out",
        "refused until a person who gives a name has cleared it, on record",
        _in(_HOSTILE, "test_o9_weld_lock_out_is_cleared_by_a_named_person_on_record"),
    )
    yield Row(
        "O10",
        "permissions, clock or adapter are not as they should be",
        "one command finds all of it in one go",
        _in("unit/cli/test_doctor.py", "test_a_simulated_plant_is_well", "test_links_in_trouble")
        + _in("unit/gateway/test_doctor_machine.py", "test_clock_and_disk"),
    )


CATALOGUE: Final = (
    *_bus(),
    *_isotp(),
    *_uds(),
    *_flash(),
    *_hv(),
    *_gateway(),
    *_attacks(),
    *_operator(),
)
"""Every row, section by section."""
