"""What ``ip -details -statistics -json link show`` prints (iproute2 6.1), and changes to it."""

from __future__ import annotations

import json
from typing import Any

# A vcan link as `ip link add dev vcan0 type vcan` leaves it, and after `ip link set vcan0 up` and five frames.
VCAN_DOWN = (
    '[{"ifindex":2,"ifname":"vcan0","flags":["NOARP"],"mtu":72,"qdisc":"noop","operstate":"DOWN","linkmode":"DEFAULT",'
    '"group":"default","txqlen":1000,"link_type":"can","promiscuity":0,"allmulti":0,"min_mtu":0,"max_mtu":0,'
    '"linkinfo":{"info_kind":"vcan"},"num_tx_queues":1,"gso_max_size":65536,"gso_max_segs":65535,'
    '"stats64":{"rx":{"bytes":0,"packets":0,"errors":0,"dropped":0,"over_errors":0,"multicast":0},'
    '"tx":{"bytes":0,"packets":0,"errors":0,"dropped":0,"carrier_errors":0,"collisions":0}}}]'
)
VCAN_UP = (
    '[{"ifindex":2,"ifname":"vcan0","flags":["NOARP","UP","LOWER_UP"],"mtu":72,"qdisc":"noqueue",'
    '"operstate":"UNKNOWN","linkmode":"DEFAULT","group":"default","txqlen":1000,"link_type":"can","promiscuity":0,'
    '"allmulti":0,"min_mtu":0,"max_mtu":0,"linkinfo":{"info_kind":"vcan"},"num_tx_queues":1,"gso_max_size":65536,'
    '"stats64":{"rx":{"bytes":23,"packets":5,"errors":0,"dropped":0,"over_errors":0,"multicast":0},'
    '"tx":{"bytes":23,"packets":5,"errors":0,"dropped":0,"carrier_errors":0,"collisions":0}}}]'
)
# An SJA1000 on a Kvaser PCI card, set to 250 kbit/s and up, on whose bus some frames were exchanged.
CAN0_250 = (
    '[{"ifindex":2,"ifname":"can0","flags":["NOARP","UP","LOWER_UP","ECHO"],"mtu":16,"qdisc":"pfifo_fast",'
    '"operstate":"UP","linkmode":"DEFAULT","group":"default","txqlen":10,"link_type":"can","promiscuity":0,'
    '"allmulti":0,"min_mtu":0,"max_mtu":0,"linkinfo":{"info_kind":"can","info_data":{"ctrlmode_supported":'
    '["LOOPBACK","LISTEN-ONLY","TRIPLE-SAMPLING","ONE-SHOT","BERR-REPORTING","PRESUME-ACK","CC-LEN8-DLC"],'
    '"state":"ERROR-ACTIVE","berr_counter":{"tx":0,"rx":0},"restart_ms":0,"bittiming":{"bitrate":250000,'
    '"sample_point":"0.875","tq":250,"prop_seg":6,"phase_seg1":7,"phase_seg2":2,"sjw":1,"brp":2},'
    '"bittiming_const":{"name":"sja1000","tseg1":{"min":1,"max":16},"tseg2":{"min":1,"max":8},"sjw":{"min":1,'
    '"max":4},"brp":{"min":1,"max":64},"brp_inc":1},"clock":8000000},"info_xstats":{"restarts":0,"bus_error":0,'
    '"arbitration_lost":0,"error_warning":0,"error_passive":0,"bus_off":0}},"num_tx_queues":1,"num_rx_queues":1,'
    '"parentbus":"pci","parentdev":"0000:00:0a.0","stats64":{"rx":{"bytes":15,"packets":3,"errors":0,"dropped":0,'
    '"over_errors":0,"multicast":0},"tx":{"bytes":39,"packets":5,"errors":0,"dropped":0,"carrier_errors":0,'
    '"collisions":0}}}]'
)
# The same before it was given a bit rate: there is no "bittiming".
CAN0_UNSET = (
    '[{"ifindex":2,"ifname":"can0","flags":["NOARP","ECHO"],"mtu":16,"qdisc":"noop","operstate":"DOWN",'
    '"linkmode":"DEFAULT","group":"default","txqlen":10,"link_type":"can","promiscuity":0,"linkinfo":'
    '{"info_kind":"can","info_data":{"ctrlmode_supported":["LOOPBACK","LISTEN-ONLY"],"state":"STOPPED",'
    '"berr_counter":{"tx":0,"rx":0},"restart_ms":0,"bittiming_const":{"name":"sja1000"},"clock":8000000},'
    '"info_xstats":{"restarts":0,"bus_error":0,"arbitration_lost":0,"error_warning":0,"error_passive":0,'
    '"bus_off":0}},"num_tx_queues":1,"stats64":{"rx":{"bytes":0,"packets":0,"errors":0,"dropped":0},'
    '"tx":{"bytes":0,"packets":0,"errors":0,"dropped":0}}}]'
)
LOOPBACK = (
    '[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"qdisc":"noqueue",'
    '"operstate":"UNKNOWN","txqlen":1000,"link_type":"loopback","stats64":{"rx":{"packets":1},"tx":{"packets":1}}}]'
)


def changed(text: str, changes: dict[str, Any], *, data: dict[str, Any] | None = None) -> str:
    """The output with other values at the top, in `data` with other values of the CAN controller."""
    (link,) = json.loads(text)
    link.update(changes)
    link["linkinfo"].setdefault("info_data", {}).update(data or {})
    return json.dumps([link])


CAN0_BUS_OFF = changed(
    CAN0_250,
    {"operstate": "DOWN", "flags": ["NO-CARRIER", "NOARP", "UP", "ECHO"]},
    data={"state": "BUS-OFF", "berr_counter": {"tx": 248, "rx": 0}},
)
# The kernel's slcan on a serial port, as slcand leaves it.
SLCAN = (
    '[{"ifindex":2,"ifname":"slcan0","flags":["NOARP","UP","LOWER_UP"],"mtu":16,"qdisc":"pfifo_fast",'
    '"operstate":"UP","linkmode":"DEFAULT","group":"default","txqlen":10,"link_type":"can","promiscuity":0,'
    '"allmulti":0,"min_mtu":0,"max_mtu":0,"linkinfo":{"info_kind":"can","info_data":{"ctrlmode_supported":'
    '["LISTEN-ONLY"],"state":"ERROR-ACTIVE","restart_ms":0,"bittiming_bitrate":0,"bitrate_const":'
    '[10000,20000,50000,100000,125000,250000,500000,800000,1000000],"clock":0},"info_xstats":{"restarts":0,'
    '"bus_error":0,"arbitration_lost":0,"error_warning":0,"error_passive":0,"bus_off":0}},"num_tx_queues":1,'
    '"stats64":{"rx":{"bytes":0,"packets":0,"errors":0,"dropped":0,"over_errors":0,"multicast":0},'
    '"tx":{"bytes":0,"packets":0,"errors":0,"dropped":0,"carrier_errors":0,"collisions":0}}}]'
)
