"""Frames of every kind, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from ess_can.can.frame import EXTENDED_FLAG, FD_LENGTHS, CanFrame

identifiers = st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda i: i | EXTENDED_FLAG))
frames = st.one_of(
    st.builds(lambda can_id, data: CanFrame(can_id, data), identifiers, st.binary(max_size=8)),
    st.builds(lambda can_id, length: CanFrame(can_id, bytes(length), remote=True), identifiers, st.integers(0, 8)),
    st.builds(
        lambda can_id, data, brs: CanFrame(can_id, data, fd=True, brs=brs),
        identifiers,
        st.sampled_from(FD_LENGTHS).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        st.booleans(),
    ),
)
