"""The committed sample files and the scripts that make them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[3] / "firmware_samples"


def script(name: str) -> ModuleType:
    """A script of firmware_samples as a module."""
    spec = importlib.util.spec_from_file_location(f"firmware_samples_{name}", FOLDER / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
