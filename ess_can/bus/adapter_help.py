"""What to do when an adapter cannot be opened: how to list what exists."""

from __future__ import annotations

_HOW_TO_LIST = {
    "socketcan": "`ip -brief link show type can` lists what exists; bring it up with "
    "`ip link set CHANNEL up type can bitrate 500000`.",
    "slcan": "`python -m serial.tools.list_ports` lists the serial ports.",
    "gs_usb": "`lsusb` lists what is plugged in; on Linux prefer the kernel driver, that is -i socketcan -c can0.",
    "virtual": "This interface exists inside one process only.",
}


def how_to_list(interface: str | None) -> str:
    """How to find out what can be opened, given python-can's name of the interface, or None if none was named."""
    if interface is None:
        return (
            "Name an interface and a channel, for example -i socketcan -c can0, or configure python-can; "
            '`python -c "import can; print(can.detect_available_configs())"` lists what is found.'
        )
    if interface in _HOW_TO_LIST:
        return _HOW_TO_LIST[interface]
    from can import VALID_INTERFACES

    if interface not in VALID_INTERFACES:
        return f"Name an interface that python-can knows: {', '.join(sorted(VALID_INTERFACES))}."
    command = f"python -c \"import can; print(can.detect_available_configs('{interface}'))\""
    return f"Install and plug in what the interface needs; `{command}` lists what is found."
