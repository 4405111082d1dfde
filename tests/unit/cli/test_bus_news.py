from __future__ import annotations

from ess_can.cli.bus_news import BusNews
from ess_can.errors import BusOff, ErrorPassive, InterfaceDown

OFF, DOWN, PASSIVE = BusOff("off"), InterfaceDown("down"), ErrorPassive("passive")


def test_each_outage_is_told_once_and_so_is_its_end() -> None:
    lines: list[str] = []
    news = BusNews(lines.append)
    news.on_frame(0.0)
    for start in (1.0, 2.0):
        news.on_error(DOWN, start)
        news.on_error(OFF, start + 0.1)
        news.on_error(DOWN, start + 0.2)
        news.on_frame(start + 0.3)  # may be from before
        news.on_frame(start + 0.5)
        news.on_frame(start + 0.6)
    assert lines == ["warning INTERFACE_DOWN: down", "warning BUS_OFF: off", "The bus is back."] * 2


def test_a_warning_is_no_outage() -> None:
    lines: list[str] = []
    news = BusNews(lines.append)
    for at in (1.0, 2.0):
        news.on_error(PASSIVE, at)
        news.on_frame(at + 0.9)
    assert lines == ["warning ERROR_PASSIVE: passive"]
