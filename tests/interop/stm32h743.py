"""An STM32H743 board, as far as the sample firmware uses it, around Unicorn's Cortex-M7.

Time is the number of ticks given: the firmware sleeps in wfi until SysTick, so nothing here waits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from unicorn import UC_ARCH_ARM, UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, arm_const

from ess_can.can.frame import CanFrame

SLOT = 0x0802_0000
LOAD_ADDRESS = SLOT + 0x200
DTCM = 0x2000_0000
DTCM_SIZE = 0x2_0000

_HANDOVER = 0x2001_FFE0
_SYSTICK = 15
_RETURN = 0x0800_0000  # where a handler returns to: the emulation stops there
_INSTRUCTIONS = 1_000_000  # between two ticks; far more than the firmware needs
_WFI = b"\x30\xbf"

_VTOR = 0xE000_ED08
_AIRCR = 0xE000_ED0C
_HSE_READY = (0x5802_4400, 1 << 17)
_GPIOE_BSRR = 0x5802_1018
_GPIOG_MODER, _GPIOG_IDR, _GPIOG_BSRR = 0x5802_1800, 0x5802_1810, 0x5802_1818
_ANALOGUE = 0b11
_IWDG_KR = 0x5800_4800
_ADC_ISR, _ADC_CR, _ADC_SQR1, _ADC_DR = 0x5802_6000, 0x5802_6008, 0x5802_6030, 0x5802_6040
_ADC_READY, _ADC_CALIBRATING = 0x1005, 1 << 31
_FDCAN, _FDCAN_RAM = 0x4000_A000, 0x4000_AC00
_RX_OFFSET, _TX_OFFSET = 4 * 64, 4 * 64 + 16 * 64
_RXF0S, _RXF0A, _TXBAR = _FDCAN + 0xA4, _FDCAN + 0xA8, _FDCAN + 0xD0
_USART_ISR, _USART_RDR, _USART_TDR = 0x4001_101C, 0x4001_1024, 0x4001_1028
_USART_RECEIVED, _USART_EMPTY = 1 << 5, 1 << 7

_CELL, _TEMPERATURE, _CURRENT, _LINK, _AUX = 5, 4, 3, 2, 6
_GOOD_INPUTS = 0b1111 << 10  # no emergency stop, no fire, interlock closed, insulated


class FirmwareReset(Exception):
    """The firmware asked for a system reset."""


class FirmwareHangs(Exception):
    """The firmware did not finish its work within a tick."""


@dataclass
class Board:
    """The board with an application in flash; values that its sensors give may be changed at any time."""

    image: bytes
    rack: int = 1
    cell_v: float = 3.30
    cell_degc: float = 25.0
    current_a: float = 0.0
    string_v: float = 792.0
    link_follows: bool = True
    aux_v: float = 24.0
    stuck_closed: int = 0  # bit mask of contactors: + 1, - 2, precharge 4
    handover: bytes = struct.pack("<IIBBBx", 0x45535331, 7, 0, 0, 0x11)
    milliseconds: int = 0
    watchdog_reloads: int = 0
    coils: int = 0
    sent: list[tuple[int, CanFrame]] = field(default_factory=list)
    serial_in: list[int] = field(default_factory=list)
    serial_out: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cell = 0
        self._rx: list[CanFrame] = []
        self._reset = False
        self._uc = uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M7)
        for start, size in (
            (0x0800_0000, 0x10_0000),
            (DTCM, DTCM_SIZE),
            (0x4000_0000, 0x2_0000),
            (0x5800_0000, 0x3_0000),
            (0xE000_E000, 0x1000),
        ):
            uc.mem_map(start, size)
        uc.mem_write(DTCM, b"\xa5" * DTCM_SIZE)  # RAM holds anything after power-on
        uc.mem_write(LOAD_ADDRESS, self.image)
        uc.mem_write(_HANDOVER, self.handover)
        self._put(_GPIOG_MODER, 0xFFFF_FFFF)  # all analogue after reset
        for start, end in ((_FDCAN, _FDCAN + 0x100), (0x4001_1000, 0x4001_1030), (0x5800_4800, 0x5802_6100)):
            uc.hook_add(UC_HOOK_MEM_READ, self._on_read, begin=start, end=end)
            uc.hook_add(UC_HOOK_MEM_WRITE, self._on_write, begin=start, end=end)
        uc.hook_add(UC_HOOK_MEM_WRITE, self._on_write, begin=_AIRCR, end=_AIRCR + 3)
        stack, reset = struct.unpack_from("<II", self.image)
        uc.reg_write(arm_const.UC_ARM_REG_SP, stack)
        self._run(reset)

    def run(self, milliseconds: int) -> list[CanFrame]:
        """Let time pass; the frames sent meanwhile.  Raises FirmwareReset."""
        first = len(self.sent)
        for _ in range(milliseconds):
            self.milliseconds += 1
            self._exception(_SYSTICK)
            self._run(self._uc.reg_read(arm_const.UC_ARM_REG_PC) | 1)
        return [frame for _, frame in self.sent[first:]]

    def receive(self, frame: CanFrame) -> None:
        """Give a frame to the controller (its filters are not modelled)."""
        self._rx.append(frame)

    def word(self, address: int) -> int:
        """A word of memory."""
        return int.from_bytes(self._uc.mem_read(address, 4), "little")

    def filters(self) -> set[int]:
        """The identifiers that the firmware lets through."""
        count = self.word(_FDCAN + 0x84) >> 16 & 0xFF
        return {self.word(_FDCAN_RAM + 4 * i) >> 16 & 0x7FF for i in range(count)}

    @property
    def vector_table(self) -> int:
        """Address of the vector table in use."""
        return self.word(_VTOR)

    def _run(self, address: int) -> None:
        self._uc.emu_start(address, _RETURN, count=_INSTRUCTIONS)  # wfi ends it too
        if self._reset:
            raise FirmwareReset
        stopped = self._uc.reg_read(arm_const.UC_ARM_REG_PC)
        if stopped != _RETURN and bytes(self._uc.mem_read(stopped - 2, 2)) != _WFI:
            raise FirmwareHangs(f"not asleep after {_INSTRUCTIONS} instructions: at {stopped:#x}")

    def _exception(self, number: int) -> None:
        """What the core does for an exception: stack, run the handler, unstack."""
        stacked = [
            *(arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R1, arm_const.UC_ARM_REG_R2, arm_const.UC_ARM_REG_R3),
            *(arm_const.UC_ARM_REG_R12, arm_const.UC_ARM_REG_LR, arm_const.UC_ARM_REG_PC, arm_const.UC_ARM_REG_XPSR),
        ]
        values = [self._uc.reg_read(register) for register in stacked]
        self._uc.reg_write(arm_const.UC_ARM_REG_LR, _RETURN | 1)
        self._run(self.word(self.vector_table + 4 * number))
        for register, value in zip(stacked, values, strict=True):
            self._uc.reg_write(register, value)

    def _straps(self) -> int:
        """The rack's number less one on PG8, PG9 and PG14."""
        low, high = (self.rack - 1) & 0b11, (self.rack - 1) >> 2
        return low << 8 | high << 14

    def _digital(self) -> int:
        """The pins of port G that are not analogue: only these can be read."""
        modes = self.word(_GPIOG_MODER)
        return sum(1 << pin for pin in range(16) if modes >> 2 * pin & 0b11 != _ANALOGUE)

    def _put(self, address: int, value: int) -> None:
        self._uc.mem_write(address, value.to_bytes(4, "little"))

    def _on_read(self, _uc: Uc, _access: int, address: int, _size: int, _value: int, _data: object) -> None:
        match address:
            case _ if address == _HSE_READY[0]:
                self._put(address, self.word(address) | _HSE_READY[1])
            case _ if address == _GPIOG_IDR:
                self._put(address, (self.coils | self.stuck_closed | self._straps() | _GOOD_INPUTS) & self._digital())
            case _ if address == _ADC_ISR:
                self._put(address, _ADC_READY)
            case _ if address == _ADC_CR:
                self._put(address, self.word(address) & ~_ADC_CALIBRATING)
            case _ if address == _ADC_DR:
                self._put(address, self._convert(self.word(_ADC_SQR1) >> 6 & 0x1F))
            case _ if address == _RXF0S:
                if self._rx:
                    self._store(self._rx[0])
                self._put(address, min(len(self._rx), 64))
            case _ if address == _USART_ISR:
                self._put(address, _USART_EMPTY | (_USART_RECEIVED if self.serial_in else 0))
            case _ if address == _USART_RDR:
                self._put(address, self.serial_in.pop(0))

    def _on_write(self, _uc: Uc, _access: int, address: int, _size: int, value: int, _data: object) -> None:
        value &= 0xFFFF_FFFF
        match address:
            case _ if address == _TXBAR:
                self._transmit(value.bit_length() - 1)
            case _ if address == _RXF0A:
                del self._rx[0]
            case _ if address == _GPIOE_BSRR:
                self._cell = value & 0xFF
            case _ if address == _GPIOG_BSRR:
                self.coils = (self.coils & ~(value >> 20) | value >> 4) & 0b111
            case _ if address == _IWDG_KR:
                self.watchdog_reloads += value == 0xAAAA
            case _ if address == _USART_TDR:
                self.serial_out.append(value & 0xFF)
            case _ if address == _AIRCR:
                self._reset = True
                self._uc.emu_stop()

    def _store(self, frame: CanFrame) -> None:
        """Put a frame into element 0 of the receive FIFO: the model always has the oldest there."""
        words = struct.pack("<II8s", frame.can_id << 18, len(frame.data) << 16, frame.data)
        self._uc.mem_write(_FDCAN_RAM + _RX_OFFSET, words)

    def _transmit(self, element: int) -> None:
        raw = bytes(self._uc.mem_read(_FDCAN_RAM + _TX_OFFSET + 16 * element, 16))
        identifier, control, data = struct.unpack("<II8s", raw)
        frame = CanFrame(identifier >> 18 & 0x7FF, data[: control >> 16 & 0xF])
        self.sent.append((self.milliseconds, frame))

    def _convert(self, channel: int) -> int:
        connected = self.coils & 0b010 and self.coils & 0b101
        link_v = self.string_v if self.link_follows and connected else 0.0
        full = {
            _CELL: self.cell_v / 5.0,
            _TEMPERATURE: (self.cell_degc + 50.0) / 200.0,
            _CURRENT: (self.current_a + 500.0) / 1000.0,
            _LINK: link_v / 2000.0,
            _AUX: self.aux_v / 36.0,
        }[channel]
        return min(max(round(full * 65536), 0), 65535)
