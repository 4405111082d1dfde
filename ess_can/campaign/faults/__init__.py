"""What can go wrong at a station: small faults, each with a text form, that take effect when their time comes."""

from ess_can.campaign.faults.catalogue import EXAMPLES, fault_help, parse_fault
from ess_can.campaign.faults.kinds import Fault, FaultKind

__all__ = ["EXAMPLES", "Fault", "FaultKind", "fault_help", "parse_fault"]
