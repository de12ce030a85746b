"""A link is measured by what is sent and acknowledged on it, and each sample is set by what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_process import ServerProcess

import semcodec
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import UsageError
from semcodec.evaluation.records import FORM, PLAN, RECORDS
from semcodec.pipeline.device import Device
from semcodec.planning.latency import OperatingPoint, Profile
from semcodec.planning.live import LOCAL, SEND, SKIP, Choice, LiveDeadline
from semcodec.planning.matching import answering_here, matching
from semcodec.serving.link import Connecting, Link
from semcodec.serving.meter import Meter
from semcodec.serving.statistics import Statistics

SPEC, OWN = "jpeg+vit-nano-server", "cls-attn+top-k+vit-nano-server"


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Simulated:
    """A link of a rate and a round trip, a server that takes its time, and records one after the other."""

    def __init__(self, rtt_s: float = 0.03, server_s: float = 0.01) -> None:
        self.time, self.rtt_s, self.server_s = Time(), rtt_s, server_s
        self.meter = Meter(self.time)
        self.meter.ping(rtt_s)
        self.number = 0

    def send(self, octets: int, mbps: float, at_once: int = 1) -> None:
        """Some records of a size, sent together, and their answers."""
        numbers = range(self.number, self.number + at_once)
        self.number += at_once
        for number in numbers:
            self.meter.submitted(number, octets)
            self.meter.sent(number, octets)
        begun = self.time.now
        for place, number in enumerate(numbers, 1):
            self.time.now = begun + place * 8e-6 * octets / mbps + self.rtt_s + self.server_s
            self.meter.acknowledged(number, self.server_s)
        self.time.now += 0.05


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.3, 50),
    st.floats(0, 0.2),
    st.integers(1, 5),
    st.lists(st.integers(500, 50_000), min_size=5, max_size=20),
)
def test_rate_and_round_trip_of_a_steady_link_are_found(mbps, rtt_s, at_once, sizes):
    link = Simulated(rtt_s)
    for octets in sizes:
        link.send(octets, mbps, at_once)
    state = link.meter.state()
    assert state.mbps <= 1.02 * mbps  # what takes less than a moment counts as one
    if all(8e-6 * octets / mbps > 2e-4 for octets in sizes):
        assert state.mbps == pytest.approx(mbps, rel=0.02)
    assert state.rtt_ms == pytest.approx(1000 * rtt_s)
    assert state.wait_ms == 0


def test_nothing_is_known_before_the_first_answer():
    meter = Meter(Time())
    meter.submitted(0, 1000)
    meter.sent(0, 1000)
    assert (meter.state().mbps, meter.state().loss) == (None, None)


@pytest.mark.parametrize(("before", "after"), [(20, 1), (1, 20)])
def test_another_rate_is_soon_known(before, after):
    link = Simulated()
    for _ in range(20):
        link.send(10_000, before)
    for _ in range(12):
        link.send(10_000, after)
    assert link.meter.state().mbps == pytest.approx(after, rel=0.35)


def test_a_record_that_stays_out_says_that_the_rate_has_fallen():
    link = Simulated()
    for _ in range(10):
        link.send(10_000, 10)
    link.meter.submitted(999, 10_000)
    link.meter.sent(999, 10_000)
    assert link.meter.state().mbps == pytest.approx(10, rel=0.05)
    link.time.now += 1.0
    assert link.meter.state().mbps < 0.1
    link.meter.cut()
    assert link.meter.state().mbps == pytest.approx(10, rel=0.05), "a cut says nothing of the rate"


def test_what_waits_before_a_record_is_counted():
    link = Simulated()
    for _ in range(10):
        link.send(10_000, 8)
    for number in (900, 901):
        link.meter.submitted(number, 10_000)
    assert link.meter.state().wait_ms == pytest.approx(20, rel=0.05)
    link.time.now += 0.005
    assert link.meter.state().wait_ms == pytest.approx(15, rel=0.05)


def test_loss_is_the_share_of_segments_that_were_sent_again():
    meter = Meter(Time())
    meter.segments(0, 100)
    assert meter.state().loss is None
    meter.segments(10, 200)
    assert meter.state().loss == pytest.approx(0.1)
    meter.segments(10, 300)
    assert meter.state().loss == pytest.approx(0.07)


# -- the choice --------------------------------------------------------------------------------------------------------


def point(quality: int, accuracy: float, octets: int, sent: float = 1.0) -> OperatingPoint:
    return OperatingPoint(
        f"q{quality}", accuracy, octets, {"encode": 2.0}, {"tail": 8.0}, sent=sent, knobs={"q": quality}
    )


POINTS = [point(10, 0.8, 1_000), point(50, 0.9, 10_000), point(90, 0.95, 100_000)]
HOME = OperatingPoint("home", 0.85, 0, {"head": 15.0}, {}, sent=0.0)


def chooser(mbps, within_ms=100.0, home=None, rtt_ms=0.0, wait_ms=0.0) -> LiveDeadline:
    state = SimpleNamespace(mbps=mbps, rtt_ms=rtt_ms, wait_ms=wait_ms)
    return LiveDeadline(POINTS, home, lambda: state, within_ms)


@pytest.mark.parametrize(
    ("link", "label"),
    [
        ({"mbps": None}, "q10"),
        ({"mbps": 100.0}, "q90"),
        ({"mbps": 5.0}, "q50"),
        ({"mbps": 5.0, "rtt_ms": 80.0}, "q10"),  # the whole round trip counts: an answer has to come back
        ({"mbps": 5.0, "wait_ms": 80.0}, "q10"),
        ({"mbps": 0.01}, "q10"),
    ],
)
def test_the_most_accurate_that_fits_is_sent_and_where_nothing_does_the_fastest(link, label):
    live = chooser(**link)
    choice = live.choose()
    assert (choice.what, choice.point.label) == (SEND, label)
    assert live.taken == {label: 1}


def test_answering_at_home_and_skipping_are_among_the_choices():
    assert chooser(5.0, home=HOME).choose().what == SEND
    choice = chooser(1.0, within_ms=30, home=HOME).choose()
    assert (choice.what, choice.point.label, dict(choice.knobs)) == (LOCAL, "home", {})
    assert chooser(1.0, within_ms=12, home=HOME).choose().what == SKIP
    assert chooser(1.0, within_ms=12).choose().what == SEND, "who cannot answer itself sends the fastest"


def test_what_the_ends_take_in_truth_is_learned():
    live = chooser(5.0)
    for _ in range(30):
        choice = live.choose()
        live.took(choice, SEND, 95.0, choice.ms)
    assert live.choose().point.label == "q10"
    for _ in range(60):
        choice = live.choose()
        live.took(choice, SEND, 10.0, choice.ms)
    assert live.choose().point.label == "q50"


def test_by_how_much_times_were_off_is_left_free():
    live = chooser(5.0, within_ms=30.0)
    assert live.choose().point.label == "q50"  # 26 ms
    for number in range(40):
        choice = live.choose()
        live.took(choice, SEND, 10.0, choice.ms + (8.0 if number % 2 else -8.0))
    assert live.choose().point.label == "q10"


def record_of(spec: str, sent: float, **more) -> OperatingPoint:
    return replace(point(50, 0.9, 1000, sent), spec=spec, knobs={"keep": 40}, **more)


def test_home_is_a_record_of_the_same_encoder_whose_gate_sends_nothing():
    one, other = (f"cls-attn:keep=40+{gate}+vit-nano-server" for gate in ("min-entropy:0.5", "never"))
    profile = Profile("p", "p", (record_of(one, 0.4), record_of(other, 0.0), record_of("jpeg+vit-nano-server", 1.0)))
    composition = compose_spec("cls-attn+top-k+min-entropy:0.5+vit-nano-server")
    assert [p.spec for p in matching(profile, "p", composition)] == [one]
    home = answering_here(profile, composition)
    assert home is not None
    assert home.spec == other
    assert answering_here(profile, compose_spec("jpeg+vit-nano-server")) is None
    with pytest.raises(UsageError, match=r"p has no operating point of png\+vit-nano-server"):
        matching(profile, "p", compose_spec("png+vit-nano-server"))


# -- over a real link --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), SPEC, OWN) as process:
        yield process


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> str:
    """What a bench measures; the larger point is made the more accurate by far, which so few samples do not tell."""
    folder = tmp_path_factory.mktemp("results")
    (folder / PLAN).write_text(json.dumps({"bench": FORM}))
    records = list(semcodec.sweep(SPEC, {"jpeg.quality": [10, 95]}, "digits-scenes", limit=20, offline=True))
    records[0]["top1"] = 0.5
    (folder / RECORDS).write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(folder)


def send(server: ServerProcess, *arguments: str) -> tuple[list[dict], dict]:
    command = [
        sys.executable,
        "-m",
        "semcodec",
        "send",
        *arguments,
        "--to",
        server.url,
        "--format",
        "json",
        "--offline",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    *answers, last = [json.loads(line) for line in done.stdout.splitlines()]
    return answers, last["summary"]


def test_a_slow_uplink_is_measured_and_gets_small_packets(server, results, tmp_path):
    (tmp_path / "slow.csv").write_text("0, 0.2\n")
    shaped = ["--shape", str(tmp_path / "slow.csv"), "--in-flight", "1", "--limit", "12"]
    deadline = 5000.0  # either fits by far what the link takes
    _, loose = send(server, SPEC, "digits-scenes", *shaped, "--adapt", results, "--deadline-ms", f"{deadline}")
    assert loose["link"]["rate_mbps"] == pytest.approx(0.2, rel=0.3)
    assert loose["answered"] == 12
    assert max(loose["chosen"], key=loose["chosen"].get) == "jpeg:95+vit-nano-server"
    answers, tight = send(server, "jpeg+deadline:60+vit-nano-server", "digits-scenes", *shaped, "--adapt", results)
    assert list(tight["chosen"]) == ["jpeg:10+vit-nano-server"]
    assert max(answer["bytes_total"] for answer in answers) < 2000
    assert min(answer["ms"]["link"] for answer in answers) > 8e-3 * min(a["bytes_total"] for a in answers) / 0.2 * 0.9


def test_python_adapts_as_the_command_does(server, results):
    with pytest.raises(UsageError, match="in Python deadline_ms"):
        semcodec.connect(server.url, SPEC, adapt=results, offline=True)
    for within, least in ((5000.0, 2000), (1e-3, 0)):  # where nothing is in time the fastest is sent
        with semcodec.connect(server.url, SPEC, adapt=results, deadline_ms=within, offline=True) as link:
            pixels, _ = open_dataset("digits-scenes", "test", link.request).batch(range(4))
            answers = [link.send(one) for one in pixels]
        assert [answer.outcome for answer in answers] == ["answered"] * 4
        assert (answers[-1].encoded.bytes_total > 2000) == bool(least)
        assert sum(link.chooser.taken.values()) == 4


class Says:
    """A chooser that was told what to say."""

    def __init__(self, *choices: Choice) -> None:
        self.choices, self.took_of, self.taken = iter(choices), [], {}

    def choose(self) -> Choice:
        return next(self.choices)

    def took(self, choice: Choice, what: str, ends_ms: float, total_ms: float) -> None:
        self.took_of.append((choice, what, ends_ms))


def test_a_device_answers_itself_or_skips_as_it_is_told(server):
    sent = [Choice(SEND, replace(POINTS[0], knobs={"keep": keep}), 0.0) for keep in (4, 30)]
    choices = [sent[0], Choice(LOCAL, HOME, 0.0), Choice(SKIP, None, 0.0), sent[1]]
    says = Says(*choices)
    device = Device.load(OWN, offline=True)
    pixels, _ = open_dataset("digits-scenes", "test", device.request).batch([0] * 4)
    with Connecting(Link(server.url, device, chooser=says, meter=Meter())) as link:
        answers = [link.send(one) for one in pixels]
        assert link.meter.state().mbps > 0
    assert [answer.outcome for answer in answers] == ["answered", "local", "skipped", "answered"]
    assert [answer.prediction is None for answer in answers] == [False, False, True, False]
    assert [dict(answer.encoded.kept) for answer in (answers[0], answers[3])] == [{"keep": 4}, {"keep": 30}]
    assert answers[1].encoded.bytes_total == answers[2].encoded.bytes_total == 0
    assert [(choice, what) for choice, what, _ in says.took_of] == [
        (choices[0], SEND), (choices[1], LOCAL), (choices[3], SEND)
    ]  # fmt: skip
    statistics = Statistics()
    for answer in answers:
        statistics.add(answer)
    assert statistics.summary()["sent"] == 2
    assert statistics.summary()["skipped"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SPEC, "--adapt", "{results}"], "give --deadline-ms"),
        ([SPEC, "--adapt", "nowhere", "--deadline-ms", "50"], "nowhere is no folder"),
        (["jpeg+deadline:50,rate=10+vit-nano-server", "--adapt", "{results}"], "is given rate"),
        (["jpeg+deadline:50,rtt=3,trace=x+vit-nano-server", "--adapt", "{results}"], "is given rtt, trace"),
        ([SPEC, "--shape", "rayleigh:colour=3"], "trace rayleigh has no colour"),
        (["png+vit-nano-server", "--adapt", "{results}", "--deadline-ms", "50"], "has no operating point of png"),
    ],
)
def test_wrong_requests_are_one_line(results, arguments, said):
    arguments = [argument.replace("{results}", results) for argument in arguments]
    done = CliRunner().invoke(main, ["send", *arguments, "digits-scenes:0", "--to", "ws://127.0.0.1:1", "--offline"])
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output
