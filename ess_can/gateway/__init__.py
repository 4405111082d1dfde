"""The gateway: policy, interlock, and the upgrade itself."""
