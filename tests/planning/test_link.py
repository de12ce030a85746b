"""Links: exact times over traces, expected ones with loss, and channels that fade as they should."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcodec.errors import DataError, SemcodecError
from semcodec.planning.link import Link, markov, rayleigh, write_trace


def test_a_fixed_rate_is_bits_by_rate_and_half_a_round_trip():
    assert Link.fixed(10).ms(12_500) == pytest.approx(10)
    assert Link.fixed(10, rtt_ms=20).ms(12_500) == pytest.approx(20)
    assert Link.fixed(10).ms(12_500, start_s=3.7) == pytest.approx(10)
    assert Link.fixed(10, rtt_ms=20).ms(0) == 0


STEPS = Link(np.array([0.0, 1.0, 2.0, 4.0]), np.array([8.0, 0.0, 4.0, 16.0]))


@pytest.mark.parametrize(
    ("nbytes", "start_s", "ms"),
    [
        (500_000, 0.0, 500),  # 4 Mbit at 8 Mbit/s
        (1_000_000, 0.0, 1000),  # to the end of the line, not of the silence after it
        (1_000_001, 0.0, 2000.002),  # one byte more waits for the silence to end
        (500_000, 1.5, 1500),  # half a second of silence, then 4 Mbit at 4
        (2_500_000, 0.0, 4250),  # 8 + 0 + 8 + 4 Mbit
        (1_000_000, 9.0, 500),  # the last rate holds
        (1_000_000, -1.0, 1000),  # before the first line its rate holds
    ],
)
def test_packets_over_a_trace_take_what_integration_says(nbytes, start_s, ms):
    assert STEPS.ms(nbytes, start_s) == pytest.approx(ms)


@given(
    st.lists(st.tuples(st.floats(0.01, 2), st.sampled_from([0.0, 0.5, 3.0, 20.0])), min_size=1, max_size=8),
    st.floats(1, 1e6),
    st.floats(0, 10),
)
def test_what_the_link_carries_until_then_is_the_packet(lines, nbytes, start):
    times = np.cumsum([step for step, _ in lines])
    link = Link(times, np.array([*(rate for _, rate in lines[:-1]), 5.0]))
    end = start + link.ms(nbytes, start) / 1e3
    edges = np.unique(np.concatenate([[start, end], times[(times > start) & (times < end)]]))
    carried = (np.diff(edges) * link.rate_at((edges[1:] + edges[:-1]) / 2)).sum()
    assert carried == pytest.approx(8e-6 * nbytes, rel=1e-6)


def test_arrays_are_as_one_by_one():
    starts, sizes = np.linspace(-1, 6, 40), np.linspace(0, 3e6, 40)
    together = STEPS.ms(sizes, starts)
    assert together.tolist() == [STEPS.ms(size, start) for size, start in zip(sizes, starts, strict=True)]


def test_a_link_that_ends_silent_never_brings_the_rest():
    link = Link(np.array([0.0, 1.0]), np.array([8.0, 0.0]))
    assert link.ms(1_000_000) == pytest.approx(1000)
    assert link.ms(1_000_001) == np.inf


@pytest.mark.parametrize(("loss", "packets"), [(0.01, 1), (0.1, 7), (0.4, 50)])
def test_loss_takes_what_a_simulation_of_rounds_takes(loss, packets):
    """Each round sends what is missing, one packet after the other, and the next begins a round trip later."""
    draw, runs, mtu, rate, rtt = np.random.default_rng(0), 20_000, 1000, 8.0, 30.0
    tries = draw.geometric(1 - loss, (runs, packets))
    each_ms = 8e-3 * mtu / rate
    times = tries.sum(1) * each_ms + (tries.max(1) - 1) * rtt + rtt / 2
    expected = Link.fixed(rate, rtt, loss, mtu).ms(packets * mtu)
    assert expected == pytest.approx(times.mean(), abs=4 * times.std() / runs**0.5)


def test_rayleigh_fades_as_it_should():
    snr, long = 10.0, rayleigh(bandwidth_mhz=1, snr_db=10, doppler_hz=5, step_s=0.01, seconds=2000, seed=0)
    power = (2**long.mbps - 1) / snr
    assert power.mean() == pytest.approx(1, rel=0.05)
    assert np.mean(power < 0.1) == pytest.approx(1 - np.exp(-0.1), rel=0.15)  # exponential power: deep fades
    steps = np.arange(1, 12)
    seen = [np.corrcoef(power[:-k], power[k:])[0, 1] for k in steps]
    phase = 2 * np.pi * 5 * 0.01 * steps
    angles = np.linspace(0, np.pi, 2001)
    bessel = np.array([np.cos(p * np.sin(angles)).mean() for p in phase])  # J0
    assert np.abs(np.array(seen) - bessel**2).max() < 0.1


def test_markov_stays_and_jumps_as_it_should():
    link = markov((1, 5, 20), stay_s=0.5, seconds=5000, seed=0)
    stays = np.diff(link.times_s)
    assert stays.mean() == pytest.approx(0.5, rel=0.05)
    assert stays.std() == pytest.approx(0.5, rel=0.08)
    assert (np.diff(link.mbps) != 0).all()
    for rate in (1, 5, 20):
        assert np.mean(link.mbps == rate) == pytest.approx(1 / 3, abs=0.02)
    assert link.times_s[-1] < 5000


def test_a_seed_names_a_channel():
    for make in (rayleigh, lambda **more: markov((1, 9), **more)):
        first, again, other = make(seed=4), make(seed=4), make(seed=5)
        assert first.mbps.tolist() == again.mbps.tolist()
        assert first.times_s.tolist() == again.times_s.tolist()
        assert first.mbps.tolist() != other.mbps.tolist()
    assert Link.trace("markov:low=1,high=9,seed=4").mbps.tolist() == markov((1, 9), seed=4).mbps.tolist()


def test_traces_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "t.csv"
    write_trace(STEPS, path)
    read = Link.trace(path, rtt_ms=5)
    assert (read.times_s.tolist(), read.mbps.tolist()) == (STEPS.times_s.tolist(), STEPS.mbps.tolist())
    assert read.rtt_ms == 5
    path.write_text("time_s, mbps\n\n0, 3  # slow\n1.5 7\n")
    assert Link.trace(path).mbps.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("0, 1\n1\n", "line 2: expects 'time_s, mbps', not '1'"),
        ("0, fast\n", "line 1: expects"),
        ("0, 1\n0, 2\n", "line 2: 0 s is not later than 0 s before it"),
        ("0, -1\n", "line 1: a time and a rate of at least 0"),
        ("0, nan\n", "line 1: a time and a rate"),
        ("", "has no line with a rate above 0"),
        ("0, 0\n", "has no line with a rate above 0"),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_a_wrong_trace_is_one_line(tmp_path, content, says):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SemcodecError, match=says) as caught:
        Link.trace(path)
    assert "\n" not in str(caught.value)


def test_a_trace_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(DataError, match="is a pipe, a device or a folder"):
            Link.trace(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Link.fixed(0), "above 0, not 0"),
        (lambda: Link.fixed(float("nan")), "above 0, not nan"),
        (lambda: Link.fixed(1, rtt_ms=-1), "round-trip time"),
        (lambda: Link.fixed(1, loss=0.999999), "from 0 to 0.99"),
        (lambda: Link([-1e308, 1e308], [1, 1]), "at most 1e\\+12 s from 0"),
        (lambda: Link.fixed(1, mtu=0), "at least 1 byte"),
        (lambda: Link.trace("no-such-file"), "no trace no-such-file"),
        (lambda: Link.trace("rayleigh:snr=3"), "no snr; it takes bandwidth_mhz, snr_db"),
        (lambda: Link.trace("rayleigh:seed=-1"), "a seed is an integer"),
        (lambda: Link.trace("rayleigh:step_s=1e-9"), "too many lines"),
        (lambda: Link.trace("markov:low=-1"), "at least 0"),
        (lambda: Link.trace("markov:5"), "no bare value"),
        (lambda: Link.trace("markov:low=x"), "is a number, not x"),
        (lambda: markov((1,)), "at least two rates"),
    ],
)
def test_a_wrong_link_is_one_line(make, says):
    with pytest.raises(SemcodecError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
