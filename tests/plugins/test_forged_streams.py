"""Packets forged under right checksums, for every codec that is installed: an error of ours, or a finite answer.

The quick suite has 5,000 cases and ``-m slow`` has 10^6, each within ``forged_streams.SECONDS`` of CPU time and
``MEMORY``. Headers, heads and chunks of the container itself are in ``tests/container/test_container_fuzz.py``.
"""

from __future__ import annotations

import random

import pytest
from forged_streams import Watch, coded, edited, encoders, forged, targets

from semcodec.composition.registry import get_registry

ENCODERS = [component for component in encoders() if component.name != "local"]  # which sends nothing
STAGES = get_registry().names("entropy")
PACKETS, CHUNKS = (4_400, 900_000), (600, 100_000)
"""Cases for all Encoders together, and for the entropy stages alone: in the quick suite, and in the slow one."""

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def shared(quick: int, slow: int, among: int) -> pytest.MarkDecorator:
    """Run with a fair share of so many cases, and of more under ``-m slow``."""
    few, many = -(-quick // among), -(-slow // among)
    return pytest.mark.parametrize(
        "cases", [few, pytest.param(many, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
    )


@shared(*PACKETS, len(ENCODERS))
@pytest.mark.parametrize("component", ENCODERS, ids=lambda component: component.name)
def test_forged_packets(component, cases, record_property):
    draw, watch, among = random.Random(cases), Watch(), targets(component)
    for target in among:
        Watch().receive(target, target.whole)  # imports what answers need, too
    for number in range(cases):
        target = among[number % len(among)]
        data = forged(target, draw)
        try:
            watch.receive(target, data)
        except Exception as error:
            raise AssertionError(f"{target.name}, packet {number} of {cases}: {error!r}: {data[:80].hex()}") from error
    told(record_property, watch)
    assert 0 < watch.refused < cases  # both kinds have really been tried


@shared(*CHUNKS, len(STAGES))
@pytest.mark.parametrize("name", STAGES)
def test_forged_symbols(name, cases, record_property):
    registry = get_registry()
    stage = registry.load(registry.find(name, "entropy"))()
    draw, watch, among = random.Random(cases), Watch(), coded(stage)
    for _ in range(cases):
        data, prior, count = draw.choice(among)
        watch.decode(stage, edited(data, draw), prior, draw.choice((count, count, count, 0, 1, 5_000)))
    told(record_property, watch)


def told(record_property, watch: Watch) -> None:
    for name in ("tried", "refused", "slowest", "largest"):
        record_property(name, getattr(watch, name))
