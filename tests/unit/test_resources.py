from __future__ import annotations

from pathlib import Path

import pytest

from ess_can import resources
from ess_can.errors import FileUnreadable


def test_in_a_checkout_the_originals_are_found() -> None:
    assert resources.sample_path("bmu-1.1.0.essup").read_bytes().startswith(b"\x89ESSUP")
    assert resources.test_key_path("TEST-ONLY-release.pub.pem").is_file()
    assert resources.dbc_path().name == "ess.dbc"


def test_packaged_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "data" / "samples" / "bmu-1.1.0.essup"
    packaged.parent.mkdir(parents=True)
    packaged.write_bytes(b"packaged")
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    assert resources.sample_path("bmu-1.1.0.essup") == packaged


def test_a_missing_file_is_told() -> None:
    with pytest.raises(FileUnreadable, match=r"nothing\.essup is missing"):
        resources.sample_path("nothing.essup")
