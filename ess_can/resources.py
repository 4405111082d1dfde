"""Where the files that travel with the package are: the DBC, the samples of the demo, the public test keys.

An installed package carries them under ``ess_can/data``; in a checkout they are found in their own directories.
"""

from __future__ import annotations

from pathlib import Path

from ess_can.errors import FileUnreadable

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def data_path(name: str, original: str) -> Path:
    """The packaged file ``ess_can/data/<name>`` or, in a checkout, its `original` below the project's root.

    Raises FileUnreadable if neither is there.
    """
    for path in (_PACKAGE / "data" / name, _CHECKOUT / original):
        if path.is_file():
            return path
    raise FileUnreadable(
        f"the packaged file {name} is missing",
        why=f"neither {_PACKAGE / 'data' / name} nor {_CHECKOUT / original} exists",
        remedy="Install ess-can again; in a checkout run `make firmware`.",
    )


def dbc_path() -> Path:
    """The station's DBC.  Raises FileUnreadable."""
    return data_path("ess.dbc", "dbc/ess.dbc")


def sample_path(name: str) -> Path:
    """A firmware sample, such as ``bmu-1.1.0.essup``.  Raises FileUnreadable."""
    return data_path(f"samples/{name}", f"firmware_samples/{name}")


def test_key_path(name: str) -> Path:
    """A public TEST key, such as ``TEST-ONLY-release.pub.pem``; for simulated plants only.  Raises FileUnreadable."""
    return data_path(f"keys/{name}", f"firmware_samples/keys/{name}")
