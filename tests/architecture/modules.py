"""The package's modules as the architecture tests see them: by their syntax trees."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ess_can"


@dataclass(frozen=True)
class Module:
    """A module of the package; `name` is dotted."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The part of ess_can that it belongs to, such as ``sim``, or its own name at the top."""
        return self.name.split(".")[1] if "." in self.name else ""

    def imports(self) -> set[str]:
        """Every module that it imports, wherever: at the top, in functions, for type checking.

        ``from a import b`` counts as both ``a`` and ``a.b``.
        """
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name} has a relative import"
                found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        return found

    def own_imports(self) -> set[str]:
        """The parts of ess_can that it imports."""
        return {name.split(".")[1] for name in self.imports() if name.startswith("ess_can.")}


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(name, path, ast.parse(path.read_text("utf-8"), str(path))))
    return tuple(found)
