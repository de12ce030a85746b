"""The kit around the checks: expected failures, the command line, families, strategies, its documentation."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conformance.records import AWAY, BACKBONE, BOUNDED, ENCODER, ENTROPY, GATE, POINT, SELECTOR
from conformance.toys import Words
from hypothesis import given, settings

from semcodec.cli import main
from semcodec.component import KINDS, Component
from semcodec.composition.registry import Registry, get_registry
from semcodec.container.packets import LocalRecord, read_header, read_packets, write_header, write_local, write_packet
from semcodec.errors import SemcodecError
from semcodec.testing import CheckFailed, check_component, checks_for, outcomes, parametrize_with_checks, strategies

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
SIDE = replace(ENTROPY, target="conformance.toys:AllTables")
REASON = {"check_side_bytes": "counts one byte too many"}


def test_check_component_stops_at_the_first_failure_and_knows_expected_ones():
    with pytest.raises(CheckFailed, match="entropy toy-entropy: check_round_trip: the lowest int32 under"):
        check_component(replace(ENTROPY, target="conformance.toys:Shorts"))
    check_component(SIDE, expected_failures=REASON)
    check_component(replace(SIDE, traits={"expected_failures": REASON}))
    with pytest.raises(CheckFailed, match="passes, and is expected to fail: it was so once"):
        check_component(ENTROPY, expected_failures={"check_damage": "it was so once"})
    with pytest.raises(ValueError, match="no check is called 'check_dmg'"):
        check_component(ENTROPY, expected_failures={"check_dmg": "misspelt"})


def test_the_example_that_a_component_names_is_where_it_is_checked():
    from semcodec.testing.cases import cases
    from semcodec.testing.subject import Subject

    def placed(example):
        component = replace(ENCODER, traits={**ENCODER.traits, "example": example})
        return Subject(component, Registry.of([*get_registry(), component]))

    found = cases(placed("resnet-nano@input"))
    assert {(case.composition.backbone.name, case.composition.cut) for case in found} == {("resnet-nano", "input")}
    assert [case.setting for case in found] == [{}, {"rows": 1.0}, {"step": 8}]
    with pytest.raises(SemcodecError, match="the example resnet-nano@nowhere has no such cut: there are input, "):
        cases(placed("resnet-nano@nowhere"))


def test_what_rests_on_a_failed_check_is_skipped_and_says_on_which():
    found = {outcome.check: outcome for outcome in outcomes(replace(ENTROPY, target="conformance.toys:Missing"))}
    assert [name for name, outcome in found.items() if outcome.result == "failed"] == ["check_target"]
    assert (found["check_damage"].result, found["check_damage"].reason) == ("skipped", "check_target fails")


def test_expected_failures_are_strict_xfails_under_pytest():
    rows = parametrize_with_checks([replace(SIDE, traits={"expected_failures": REASON})]).args[1]
    [marked] = [row for row in rows if row.marks]
    assert marked.id == "entropy/toy-entropy-check_side_bytes"
    assert (marked.marks[0].name, marked.marks[0].kwargs["strict"]) == ("xfail", True)
    assert marked.marks[0].kwargs["reason"] == REASON["check_side_bytes"]


def test_the_kit_needs_neither_pytest_nor_hypothesis_nor_torch_until_it_checks():
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None; import semcodec.testing as t; "
        "from semcodec.composition.registry import get_registry; assert 'torch' not in sys.modules; "
        "from semcodec.testing import records; "
        "[t.Check(f.__name__, t.Subject(c, get_registry()), f)() for c in [get_registry().find('pack')] "
        "for f in records.checks(c)]\n"
        "try:\n    import semcodec.testing.strategies\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "PluginError semcodec.testing.strategies needs Hypothesis: pip install hypothesis"


def test_a_missing_dependency_is_skipped_with_its_cure():
    needy = replace(ENTROPY, requires=("no_such_package",), extra="learned")
    marks = parametrize_with_checks([needy]).args[1][0].marks
    assert marks[0].name == "skip"
    assert marks[0].kwargs["reason"] == "pip install 'semcodec[learned]'"


# -- the command line --------------------------------------------------------------------------------------------------


FAMILY = Component(
    "backbone",
    "toys/*",
    "conformance.toys:ClipsOf",
    "a family",
    spec="conformance.specs:clips_of",
    traits={"example": "small"},
)
NEEDY = replace(ENTROPY, name="needy", requires=("no_such_package",), extra="learned")
GATE_TOO = replace(GATE, name="toy-entropy")
BROKEN = replace(ENTROPY, name="toy-shorts", target="conformance.toys:Shorts")
KNOWN = replace(SIDE, name="toy-tables", traits={"expected_failures": REASON})


@pytest.fixture
def run(monkeypatch):
    registry = Registry.of([*get_registry(), ENTROPY, GATE_TOO, BROKEN, KNOWN, NEEDY, FAMILY])
    monkeypatch.setattr("semcodec.composition.registry.get_registry", lambda: registry)
    return lambda *arguments: CliRunner().invoke(main, ["plugins", "check", *arguments])


def test_plugins_check_prints_a_table(run):
    done = run("toy-entropy", "--kind", "entropy")
    assert done.exit_code == 0, done.output
    header, *rows, _, summary = done.stdout.splitlines()
    assert header.split() == ["check", "result", "seconds", "reason"]
    assert [row.split()[0] for row in rows] == [check.name for check in checks_for(ENTROPY)]
    assert {row.split()[1] for row in rows} == {"passed"}
    assert summary == f"entropy toy-entropy: {len(rows)} passed"
    said = [line.split()[:3] for line in done.stderr.splitlines()]
    assert said == [[f"{n}/{len(rows)}", row.split()[0], "passed,"] for n, row in enumerate(rows, 1)]


def test_plugins_check_fails_with_exit_code_1_and_goes_on(run):
    done = run("toy-shorts", "--format", "json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    checks = {check["check"]: check for check in found["checks"]}
    assert list(checks) == [check.name for check in checks_for(BROKEN)]
    assert checks["check_round_trip"]["result"] == "failed"
    assert "does not come back as it was" in checks["check_round_trip"]["reason"]
    assert checks["check_side_bytes"]["result"] == "passed"
    assert all(check["seconds"] >= 0 for check in found["checks"])
    assert (found["kind"], found["name"]) == ("entropy", "toy-shorts")
    assert found["failed"] == sum(check["result"] == "failed" for check in found["checks"]) > 0


def test_plugins_check_shows_expected_failures(run):
    done = run("toy-tables")
    assert done.exit_code == 0, done.output
    [row] = [line for line in done.stdout.splitlines() if line.startswith("check_side_bytes")]
    assert re.fullmatch(r"check_side_bytes +expected +[\d.]+  counts one byte too many", row)
    assert done.stdout.splitlines()[-1].endswith(" passed, 1 expected")


def test_plugins_check_takes_a_member_of_a_family(run):
    for name in ("toys/small", "toys/*"):
        done = run(f"backbone/{name}")
        assert done.exit_code == 0, done.output
        assert "check_cuts_agree" in done.stdout


def test_plugins_check_of_what_is_not_there(run):
    assert (run("toy-entropi").exit_code, run("toy-entropy").exit_code) == (2, 2)
    assert "did you mean toy-entropy or" in run("toy-entropi").stderr
    assert "write selector/toy-entropy or entropy/toy-entropy" in run("toy-entropy").stderr
    done = run("needy")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: needy needs no_such_package: pip install 'semcodec[learned]'\n"


# -- strategies --------------------------------------------------------------------------------------------------------

quick = settings(max_examples=60, deadline=None, derandomize=True)


@quick
@given(strategies.coded())
def test_symbols_have_a_code_under_their_prior(drawn):
    from semcodec.testing.entropy import possible

    symbols, prior = drawn
    assert symbols.dtype == np.int32
    assert possible(symbols, prior)
    stage = Words()
    assert np.array_equal(stage.decode(stage.encode(symbols, prior), prior, len(symbols)), symbols)


@quick
@given(
    strategies.headers().flatmap(
        lambda header: strategies.st.tuples(strategies.st.just(header), strategies.records(header))
    )
)
def test_streams_read_back(drawn):
    header, record = drawn
    assert read_header(BytesIO(write_header(header))) == header
    if isinstance(record, LocalRecord):
        assert list(read_packets(BytesIO(write_local(header, record)), header)) == [record]
        return
    sequence, params, parts = record
    [packet] = read_packets(BytesIO(write_packet(header, sequence, params, parts)), header)
    assert (packet.sequence, dict(packet.params)) == (sequence, {**header.params, **params})
    assert [chunk.verify(part.name) for chunk, part in zip(packet.chunks, parts, strict=True)] == [
        p.data for p in parts
    ]
    assert packet.layers_total == max(1, sum(part.ends_layer for part in parts[:-1]) + 1)


# -- the documentation -------------------------------------------------------------------------------------------------


def documented() -> list[str]:
    """Rows of the table: name, kinds, promise, in the order of the checks of each kind."""
    everything = [BACKBONE, BOUNDED, AWAY, ENTROPY, replace(ENTROPY, kind="recoverer"), SELECTOR, GATE, POINT]
    kinds: dict[tuple[str, str], list[str]] = {}
    for component in everything:
        for check in checks_for(component):
            said = " ".join((inspect.getdoc(check.function) or "").split())
            of = kinds.setdefault((check.name, said), [])
            if component.kind not in of:
                of.append(component.kind)
    assert all(said for _, said in kinds)
    rows = [(name, ", ".join(k) if len(k) < len(KINDS) else "every kind", said) for (name, said), k in kinds.items()]
    rows.sort(key=lambda row: (row[1] != "every kind", "," not in row[1], row[1]))
    return [f"| `{name}` | {kind} | {said.replace('``', '`')} |" for name, kind, said in rows]


def test_every_check_is_documented_in_its_own_words():
    assert [line for line in DOCS.read_text().splitlines() if line.startswith("| `check")] == documented()
