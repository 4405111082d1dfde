"""What can go wrong at a station: small faults, each with a text form, that take effect when their time comes."""

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.catalogue import EXAMPLES, fault_help, parse_fault
from ess_can.campaign.station import Fault

__all__ = ["EXAMPLES", "Fault", "FaultKind", "fault_help", "parse_fault"]
