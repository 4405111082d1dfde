"""Secrets of simulated nodes.  They are published, so they protect nothing: never put them into a real node."""

from __future__ import annotations

from typing import Final

TEST_ONLY_ACCESS_SECRET: Final = bytes.fromhex("7465737420736563726574206f6e6c79")
"""The shared secret of service 27 of every simulated node, 16 bytes: ASCII ``test secret only``."""
