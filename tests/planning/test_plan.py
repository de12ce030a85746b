"""The operating point for a link and a deadline: the papers' choices from the papers' figures, and measured ones."""

from __future__ import annotations

import importlib.util
import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.planning.latency import Coding, OperatingPoint, Profile, crossing_bytes, crossing_mbps, paying, vit_macs
from semcodec.planning.link import Link
from semcodec.planning.operating_points import open_points, point_of, shipped
from semcodec.planning.plan import plan, replay

ROOT = Path(__file__).parents[2]
STAE = open_points("stae")
AECNN = {"device_ms": 30.0, "server_ms": 11.7}


def named(profile, label):
    return next(point for point in profile.points if point.label == label)


# -- the papers' claims, from the papers' figures ----------------------------------------------------------------------


def test_stae_at_100_mbps_within_100_ms_takes_4_frames_at_40_percent():
    found = plan(STAE, Link.fixed(100), 100)
    assert found.best.point.knobs == {"frames": 4, "pixels": 0.4}
    assert found.best.ms == pytest.approx(98.5, abs=0.05)
    assert found.runner_up.point.accuracy == 0.698


def test_stae_at_200_mbps_within_100_ms_takes_4_frames_whole():
    found = plan(STAE, Link.fixed(200), 100)
    assert found.best.point.knobs == {"frames": 4, "pixels": 1.0}
    assert found.best.ms == pytest.approx(75.6, abs=0.05)
    forty = next(row for row in found.rows if row.point.knobs == {"frames": 4, "pixels": 0.4})
    assert forty.ms > found.best.ms, "at 200 Mbit/s 4 frames at 40 % are slower and less accurate, for no deadline best"


@pytest.mark.parametrize(("compute", "ratio"), [(0.0, 4), (41.7, 4), (41.8, 8), (71.0, 8)])
def test_aecnn_at_10_mbps_within_100_ms_takes_ratio_4_while_computing_takes_at_most_41_7_ms(compute, ratio):
    profile = open_points("aecnn-l1", {"device_ms": 0.7 * compute, "server_ms": 0.3 * compute})
    assert plan(profile, Link.fixed(10), 100).best.point.knobs == {"ratio": ratio}


def test_aecnn_never_takes_ratio_2_at_10_mbps_because_the_link_alone_takes_111_7_ms():
    profile = open_points("aecnn-l1", {"device_ms": 0, "server_ms": 0})
    two = next(row for row in plan(profile, Link.fixed(10), 100).rows if row.point.knobs == {"ratio": 2})
    assert two.coded
    assert two.stages_ms["link"] == pytest.approx(111.7, abs=0.05)
    assert not two.fits


@pytest.mark.parametrize(("rate", "ours", "server"), [(1, 402, 1213), (8, 62, 159), (20, 33, 69)])
def test_patch_selection_and_server_based_inference(rate, ours, server):
    found = plan(open_points("patches"), Link.fixed(rate), 5000)
    assert round(found.best.ms) == ours
    assert round(found.full.ms) == server


def test_the_missing_time_of_local_computing_makes_it_best_only_below_1_2_mbps():
    one = named(STAE, "1 frame at 40 %")
    there = Link.fixed(1.2)
    assert STAE.local.ms(there) == pytest.approx(paying(one, there).ms(there), abs=0.05)
    assert crossing_mbps(STAE.local, one) == pytest.approx(1.2, rel=1e-4)


def test_the_missing_size_of_the_clip_makes_deepisc_best_only_below_227_mbps():
    deepisc = named(open_points("deepisc"), "1 frame at 40 %")
    assert crossing_bytes(deepisc, STAE.full, 227) == pytest.approx(STAE.full.bytes, rel=1e-4)
    assert crossing_mbps(deepisc, STAE.full) == pytest.approx(227, rel=1e-3)
    one = named(STAE, "1 frame at 40 %")
    assert crossing_mbps(one, STAE.full) == math.inf, "STAE is faster than full offloading at every rate"
    # DeepISC's values have the lower entropy, as if all of them were coded, so at the lowest rates it is faster.
    assert crossing_mbps(deepisc, one) == pytest.approx(0.68, abs=0.01)


def test_the_missing_time_of_the_split_makes_aecnn_best_only_below_147_44_mbps():
    """Of the split against the whole: device + server - whole server is the one unknown, 10.17 ms at ratio 64."""
    link = Link.fixed(147.44)
    free = named(open_points("aecnn-l1", {"device_ms": 0, "server_ms": 0}), "ratio 64")
    extra = link.ms(200_000) - paying(free, link).ms(link)
    assert extra == pytest.approx(10.17, abs=0.01)
    profile = open_points("aecnn-l1", {"device_ms": extra + 3, "server_ms": 5, "server_full_ms": 8})
    assert crossing_mbps(named(profile, "ratio 64"), profile.full) == pytest.approx(147.44, rel=1e-4)


def test_the_page_of_these_claims_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("latency_page", ROOT / "docs/results/latency.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_eq_9_is_the_deit_base_that_table_1_prints():
    whole = vit_macs(197, 768, depth=12) + 196 * 768**2 + 768 * 1000  # with the class token, patches and head
    assert whole == pytest.approx(17.58e9, rel=2e-3)


# -- choosing ----------------------------------------------------------------------------------------------------------


def point(label, accuracy, nbytes, device=0.0, **more):
    return OperatingPoint(label, accuracy, nbytes, {"head": device}, {}, **more)


def profile_of(*points, **more):
    return Profile("toy", "toy", points, **more)


def test_the_entropy_coder_is_used_only_where_it_pays():
    coded = point("p", 0.9, 10_000, coding=Coding(5_000, 3.0, 2.0))  # saves 40 kbit for 5 ms: 8 Mbit/s
    for rate, used in ((7.9, True), (8.1, False)):
        row = plan(profile_of(coded), Link.fixed(rate), 1000).rows[0]
        assert row.coded is used
        assert ("entropy_encode" in row.stages_ms) is used
        assert sum(row.stages_ms.values()) == pytest.approx(row.ms)


def test_equal_accuracy_goes_to_the_faster_and_a_deadline_may_be_met_to_the_point():
    found = plan(profile_of(point("slow", 0.9, 0, 20), point("fast", 0.9, 0, 10)), Link.fixed(1), 20)
    assert (found.best.point.label, found.runner_up.point.label) == ("fast", "slow")


def test_why_nothing_fits():
    found = plan(profile_of(point("a", 0.9, 1000, 20), point("b", 0.8, 500, 20)), Link.fixed(1), 10)
    assert (found.best, found.runner_up) == (None, None)
    assert found.fastest.point.label == "b"
    assert found.fastest.why == "14.0 ms too slow"


def test_the_gate_counts_what_is_sent():
    half = OperatingPoint("half", 0.9, 1000, {"analyse": 4.0}, {"tail": 6.0}, sent=0.5)
    assert half.ms(Link.fixed(8, rtt_ms=10)) == pytest.approx(4 + 0.5 * (1 + 5 + 6))


def test_energy_bounds_the_choice():
    profile = open_points("patches", {"joule_per_mac": 1e-11, "joule_per_bit": 1e-7})
    spent = 1e3 * (1.26e9 * 1e-11 + 0.429 * 8 * 1e-7 * 224 * 224 * 3 * 147.24 / 196)
    free = plan(profile, Link.fixed(8), 100, energy_mj=spent * 1.001)
    assert free.best.energy_mj == pytest.approx(spent)
    short = plan(profile, Link.fixed(8), 100, energy_mj=spent * 0.9)
    assert short.best is None
    assert "mJ too much" in short.fastest.why
    with pytest.raises(UsageError, match="does not say what a multiply-accumulate"):
        plan(STAE, Link.fixed(8), 100, energy_mj=10)


# -- over a link that varies -------------------------------------------------------------------------------------------


def test_replay_takes_what_fits_the_rate_of_the_moment():
    large, small = point("large", 0.9, 125_000), point("small", 0.7, 12_500)  # 100 and 10 ms at 10 Mbit/s
    link = Link(np.array([0.0, 1.0, 2.0]), np.array([10.0, 2.0, 10.0]))
    adaptive, always_large, always_small = replay(profile_of(large, small), link, 100, seconds=2)
    assert adaptive.samples == 20
    assert adaptive.share == {"large": 0.5, "small": 0.5}
    assert (adaptive.hits, always_large.hits, always_small.hits) == (1.0, 0.5, 1.0)
    assert adaptive.useful == pytest.approx(0.8)
    assert always_large.accuracy == pytest.approx(0.9)
    assert (always_large.useful, always_small.useful) == (pytest.approx(0.45), pytest.approx(0.7))


def test_replay_pays_for_a_rate_that_falls_on_the_way():
    link = Link(np.array([0.0, 0.05, 1.0]), np.array([10.0, 1.0, 1.0]))
    adaptive = replay(profile_of(point("large", 0.9, 125_000)), link, 100, seconds=0.1)[0]
    assert adaptive.hits == 0  # 500 of its 1000 kbit went in 50 ms, the others took 500
    assert adaptive.median_ms == pytest.approx(550)
    with pytest.raises(UsageError, match="shorter than the deadline"):
        replay(STAE, link, 100, period_ms=50)


def test_headroom_is_for_a_rate_that_falls():
    link = Link(np.array([0.0, 0.05, 1.0]), np.array([10.0, 5.0, 5.0]))
    profile = profile_of(point("large", 0.9, 125_000), point("small", 0.7, 62_500))
    assert replay(profile, link, 100, seconds=0.1)[0].hits == 0
    careful = replay(profile, link, 100, seconds=0.1, headroom=0.4)[0]
    assert (careful.share, careful.hits) == ({"small": 1.0}, 1.0)
    fading = Link.trace("rayleigh:bandwidth_mhz=40,seed=1")
    adaptive, *fixed = replay(STAE, fading, 100, headroom=0.4)
    assert adaptive.useful > max(row.useful for row in fixed)


def test_the_adaptive_choice_is_worth_more_than_every_fixed_point_where_two_rates_take_turns():
    adaptive, *fixed = replay(STAE, Link.trace("markov:low=20,high=200,seed=1"), 100)
    assert adaptive.useful > max(row.useful for row in fixed)
    assert adaptive.hits > 0.97


# -- profiles and results ----------------------------------------------------------------------------------------------


def test_every_shipped_profile_opens_and_says_what_it_assumes():
    assert shipped() == ["aecnn-l1", "aecnn-l2", "deepisc", "patches", "stae"]
    for name in shipped():
        profile = open_points(name)
        assert profile.points
        assert all(0.2 < point.accuracy < 1 for point in profile.points)
    assert STAE.assumed.keys() == {"local_ms", "video_bytes"}
    assert open_points("stae", {"local_ms": 20}).local.ms(Link.fixed(1)) == 20
    with pytest.raises(UsageError, match="give --assume device_ms=MS --assume server_ms=MS"):
        plan(open_points("aecnn-l1"), Link.fixed(10), 100)


def test_sizes_are_those_that_the_tables_print():
    mib = [2.30, 0.92]
    sizes = [named(STAE, f"4 frames at {share} %").bytes / 2**20 for share in (100, 40)]
    assert np.round(sizes, 2).tolist() == mib
    assert named(open_points("aecnn-l1", AECNN), "ratio 4").bytes == 64 * 56 * 56


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x = ", "is no TOML"),
        ("name = 'a'", r"has no \[\[point\]\]"),
        ("[[point]]\nbites = 3", "point 1: table contains unknown field `bites`"),
        ("[[point]]\naccuracy = 70", "fractions from 0 to 1"),
        ("[[point]]\ndevice_ms = { head = 'x' }", r"no \[assume.x\] explains"),
        ("[[point]]\nbytes = -1", "bytes of point 1: expected `float` >= 0"),
        ("[[point]]\npatches = 3", "point 1 counts patches"),
        ("[[point]]\npatches = 3\n[vit]\npatches = 9", "vit: table missing required field `width`"),
        ("[[point]]\nbytes = [2, inf]", "bytes 2 of point 1: expected `float` <= 1e"),
        ("[[point]]\nmacs = nan", "macs of point 1: expected `float` "),
        ("[[point]]\nmacs = true", "macs of point 1: expected `.*`, got `bool`"),
        ("[[point]]\n[[point]]\nserver_ms = { tail = -3 }", "server_ms of point 2: expected `float` >= 0"),
        ("element_bits = 0\n[[point]]", "element_bits: expected `float` > 0"),
        ("point = 3", "point: expected `array`, got `int`"),
        ("[[point]]\npatches = 1e10\n[vit]\npatches = 1\nwidth = 1", "patches of point 1 are at most 1e"),
        ("[[point]]\npatches = 1\n[vit]\npatches = 1\nwidth = 1e200", "width of vit: expected `float` <= 1"),
        ("[[point]]\npatches = 1\n[vit]\npatches = 1e-320\nwidth = 1", "patches of vit: expected `float` >= 1"),
        ("[[point]]\npatches = 1e9\nbytes = 1e300\n[vit]\npatches = 1\nwidth = 1", "numbers that are too large"),
        ("[[point]]\ndevice_ms = 3", "device_ms of point 1: expected `table`, got `int`"),
    ],
)
def test_a_wrong_profile_is_one_line(tmp_path, content, says):
    path = tmp_path / "p.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        open_points(str(path))
    assert "\n" not in str(caught.value).strip()


RECORD = {
    "record": 1,
    "key": "k",
    "spec": "stae:frames=2+rans+vit-nano",
    "task": "video",
    "knobs": {"frames": 2, "pixels": 0.4, "coding": "raw", "quality": 75},
    "data": "digits-motion",
    "split": "test",
    "data_digest": "d",
    "samples": 8,
    "top1": 0.75,
    "top1_interval": [0.4, 0.9],
    "bytes_total": 1000.0,
    "raw_uint8_bytes": 50_000,
    "sent_ratio": 1.0,
    "formats": {"encoder/stae": 2, "encoder/cls-attn": 2},
    "stages_ms": {"head": 1.0, "entropy_encode": 2.0, "entropy_decode": 1.0, "tail": 5.0},
}


@pytest.fixture
def results(tmp_path):
    rows = [
        RECORD,
        RECORD
        | {"spec": "stae:frames=8+rans+vit-nano", "knobs": RECORD["knobs"] | {"frames": 8}}
        | {"top1": 0.9, "bytes_total": 4000.0, "cell": "b"},
        RECORD | {"spec": "png+vit-nano", "knobs": {"frames": 0}, "top1": 0.95, "bytes_total": 40_000.0, "cell": "c"},
        {"record": 1, "cell": "d", "spec": "x", "data": "digits-motion", "failed": "out of memory"},
    ]
    (tmp_path / "plan.json").write_text(json.dumps({"bench": 1}))
    lines = [json.dumps({"cell": "a"} | row) for row in rows]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_results_folder_is_points_with_its_baselines(results):
    found = plan(open_points(str(results)), Link.fixed(1), 45)
    assert found.best.point.spec == "stae:frames=8+rans+vit-nano"
    assert found.best.ms == pytest.approx(9 + 32)
    assert found.best.stages_ms == {"head": 1, "entropy_encode": 2, "link": 32, "entropy_decode": 1, "tail": 5}
    assert found.runner_up.point.spec == "stae:frames=2+rans+vit-nano"
    assert (found.full.point.accuracy, found.full.ms) == (0.95, pytest.approx(9 + 320))
    assert found.local.ms == pytest.approx(6)  # head and tail, on the machine that measured
    assert found.local.point.bytes == 0


def test_equal_tails_are_pooled_and_local_computing_is_named_where_it_is_best(results):
    """Three records of one tail, timed 5, 9 and 40 ms by chance, rank as one; a tail of fewer patches is its own."""
    kept = "cls-attn:keep={}+top-k+rans+vit-nano-server"
    rows = [json.loads(line) for line in (results / "records.jsonl").read_text().splitlines()]
    for row, tail in zip(rows, (5.0, 40.0, 9.0), strict=False):
        row["stages_ms"] = row["stages_ms"] | {"tail": tail}
    rows += [
        rows[0] | {"spec": kept.format(n), "knobs": {"keep": n}, "cell": str(n), "top1": 0.5}
        | {"stages_ms": {"head": 1.0, "tail": float(n)}}
        for n in (18, 27)
    ]  # fmt: skip
    (results / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = open_points(str(results))
    tails = {point.spec: point.server_ms["tail"] for point in profile.points}
    assert [tails[row["spec"]] for row in rows[:3]] == [9.0, 9.0, 9.0]
    assert [tails[kept.format(n)] for n in (18, 27)] == [18.0, 27.0]
    assert profile.notes["tail of vit-nano"] == "5.00 to 40.00 ms in 3 records; taken is the median, 9.00"
    assert "--device-speed" in profile.notes["ends"]
    found = plan(profile, Link.fixed(1), 100)
    assert (found.local.point.accuracy, found.local.ms) == (0.95, pytest.approx(10))
    assert found.best_at_home
    slow = profile.at_speeds(0.01, 1)
    assert not plan(slow, Link.fixed(1), 10_000).best_at_home  # as accurate as what is sent, and slower
    assert not plan(slow, Link.fixed(1), 999).best_at_home  # not within the deadline
    shown = CliRunner().invoke(main, ["plan", "--results", str(results), "--rate-mbps", "1", "--deadline-ms", "100"])
    assert "best of all" in shown.stdout
    assert "local: 95.00 % in 10.00 ms, with nothing sent" in shown.stdout
    assert "5.00 to 40.00 ms in 3 records" in shown.stdout


def test_speeds_scale_either_end(results):
    found = plan(open_points(str(results)).at_speeds(0.1, 2), Link.fixed(1), 1000)
    stages = {"head": 10, "entropy_encode": 20, "link": 32, "entropy_decode": 0.5, "tail": 2.5}
    assert next(row for row in found.rows if "frames=8" in row.point.label).stages_ms == stages
    assert found.local.ms == pytest.approx(60)
    assert STAE.at_speeds(2, 1).points[0].coding.encode_ms == STAE.points[0].coding.encode_ms / 2
    with pytest.raises(UsageError, match="speed of a device is a number above 0"):
        STAE.at_speeds(0, 1)


def test_records_with_a_gate_are_per_sample_that_is_sent():
    gated = point_of(RECORD | {"sent_ratio": 0.25})
    assert gated.bytes == 4000
    assert gated.server_ms == {"entropy_decode": 4, "tail": 20}
    assert gated.ms(Link.fixed(8)) == pytest.approx(9 + 1)


def test_a_results_folder_of_nothing_or_of_two_data_sets_is_one_line(results):
    file = results / "records.jsonl"
    lines = file.read_text().splitlines()
    file.write_text(lines[0] + "\n" + json.dumps(json.loads(lines[1]) | {"data_digest": "e"}) + "\n")
    with pytest.raises(DataError, match="different samples"):
        open_points(str(results))
    file.write_text(lines[-1] + "\n")
    with pytest.raises(DataError, match="no record of a cell that ran"):
        open_points(str(results))


# -- the Selector ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.load(compose_spec("stae+rans+vit-nano"), WeightsRequest(offline=True))


@pytest.fixture(scope="module")
def pixels(pipeline):
    return open_dataset("digits-motion", "test", pipeline.request).batch(range(4))[0]


def at(pipeline, spec):
    return pipeline.replace(composition=compose_spec(spec))


@pytest.mark.parametrize(("rate", "pixels_kept"), [(100, 0.4), (200, 1.0)])
def test_deadline_in_a_spec_sets_the_papers_choice(pipeline, pixels, rate, pixels_kept):
    there = at(pipeline, f"stae+deadline:100,rate={rate},profile=stae+rans+vit-nano")
    encoded = there.encode_batch(pixels[:2], [0, 1])
    assert [packet.params["frames"] for packet in there.records(encoded)] == [4, 4]
    plain = at(pipeline, f"stae:frames=4,pixels={pixels_kept}+rans+vit-nano").encode_batch(pixels[:2], [0, 1])
    assert [record.kept for record in encoded] == [record.kept for record in plain]


def test_deadline_over_a_trace_differs_from_sample_to_sample_and_decodes_without_profile(pipeline, pixels, tmp_path):
    trace, profile = tmp_path / "t.csv", tmp_path / "p.toml"
    trace.write_text("0, 1\n0.2, 100\n")
    rows = [(1, 0.6, 1000), (8, 0.9, 100_000)]
    profile.write_text(
        "encoder = 'stae'\n"
        + "".join(f"[[point]]\nknobs = {{ frames = {n} }}\naccuracy = {a}\nbytes = {b}\n" for n, a, b in rows)
    )
    there = at(pipeline, f"stae+deadline:100,profile={profile},trace={trace}+rans+vit-nano")
    encoded = there.encode_batch(pixels, range(4))
    assert [packet.params["frames"] for packet in there.records(encoded)] == [1, 1, 8, 8]
    expected = [there.decode(record).index for record in encoded]
    alone = [there.encode_batch(pixels[i : i + 1], [i])[0].data for i in range(4)]
    assert alone == [record.data for record in encoded]
    trace.unlink()
    profile.unlink()
    server = Server.load(there.header, WeightsRequest(offline=True))
    assert [server.decode(record.data).index for record in encoded] == expected


def test_what_the_spec_sets_stays(pipeline):
    for spec, knobs in (
        ("stae:pixels=1.0+deadline:100,rate=100+rans+vit-nano", {"frames": 2, "pixels": 1.0}),
        ("stae:frames=1+deadline:100,rate=100+rans+vit-nano", {"frames": 1, "pixels": 1.0}),
    ):
        there = at(pipeline, spec)
        assert there.stages.selectors.point.point(there.composition, [0]) == [knobs]
    there = at(pipeline, "stae:frames=3+deadline:100+rans+vit-nano")
    with pytest.raises(UsageError, match=r"no operating point of .* with frames=3"):
        there.stages.selectors.point.point(there.composition, [0])


def test_measured_points_are_those_of_the_pipeline_alone(pipeline, results):
    for rate, frames in ((1, 8), (0.25, 2)):
        there = at(pipeline, f"stae+deadline:45,rate={rate},profile={results}+rans+vit-nano")
        assert there.stages.selectors.point.point(there.composition, [0])[0]["frames"] == frames
    lines = (results / "records.jsonl").read_text()  # measured with a choice of its own: no point to choose
    chosen = RECORD | {"spec": "stae+deadline:9+rans+vit-nano", "top1": 1.0, "bytes_total": 1.0, "cell": "e"}
    (results / "records.jsonl").write_text(lines + json.dumps(chosen) + "\n")
    there = at(pipeline, f"stae+deadline:45,rate=1.0,profile={results}+rans+vit-nano")
    assert there.stages.selectors.point.point(there.composition, [0])[0]["frames"] == 8
    other = at(pipeline, f"stae+deadline:45,profile={results}+zstd+vit-nano")
    with pytest.raises(UsageError, match="no operating point of"):
        other.stages.selectors.point.point(other.composition, [0])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("stae+deadline:10+deadline:20+rans+vit-nano", "deadline already sets the knobs of stae"),
        ("stae+deadline@frames:10+rans+vit-nano", "takes no '@'"),
        ("tensor8+deadline:10+rans+vit-nano", "tensor8 has no call parameter that deadline could set"),
        ("stae+deadline:0+rans+vit-nano", "ms of deadline must be at least 0.001"),
    ],
)
def test_a_wrong_deadline_is_refused_when_composed(spec, says):
    with pytest.raises(SemcodecError, match=says):
        compose_spec(spec)


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments, code=0):
    done = CliRunner().invoke(main, ["plan", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_plan_prints_the_choice_and_what_it_assumed():
    text = run("--profile", "stae", "--rate-mbps", "100", "--deadline-ms", "100")
    assert "stae:frames=4,pixels=0.4" in text
    assert "98.45" in text
    assert "546.2 ms too slow" in text
    assert "solved from: local computing" in text
    document = json.loads(run("--profile", "stae", "--rate-mbps", "2", "--deadline-ms", "10", "--format", "json"))
    assert document["best"] is None
    assert document["why"].startswith("the fastest, 1 frame at 40 %, is ")
    assert len(document["points"]) == 10


def test_plan_replays_a_trace_that_it_can_save(tmp_path):
    saved = tmp_path / "t.csv"
    made = ["--profile", "stae", "--deadline-ms", "100", "--format", "json", "--seconds", "5"]
    first = json.loads(run(*made, "--trace", "rayleigh:bandwidth_mhz=40,seed=2", "--save-trace", str(saved)))
    assert first == json.loads(run(*made, "--trace", str(saved)))
    assert first["choices"][0]["label"] == "adaptive"
    assert first["samples"] == 50


def with_work(results, *work: tuple[float, float]) -> None:
    """What the records say of computing: multiply-accumulates of the device, and of the whole."""
    rows = [json.loads(line) for line in (results / "records.jsonl").read_text().splitlines()]
    for row, (device, whole) in zip(rows, work, strict=False):
        row |= {"macs_device": device, "macs_server": 1.0, "macs_whole": whole, "device_share": device / whole}
    (results / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_bound_on_the_devices_share_bounds_the_choice(results):
    with_work(results, (2e8, 1e9), (4e8, 1e9), (0.0, 1e9))
    free = plan(open_points(str(results)), Link.fixed(1), 45, max_share=0.4)
    assert (free.best.point.bytes, free.best.point.share) == (4000, 0.4)
    bound = plan(open_points(str(results)), Link.fixed(1), 45, max_share=0.35)
    assert (bound.best.point.bytes, bound.best.point.share) == (1000, 0.2)
    assert (bound.full.point.share, bound.local.point.share, bound.local.fits) == (0.0, 1.0, False)
    text = run("--results", str(results), "--rate-mbps", "1", "--deadline-ms", "45", "--max-device-share", "0.35")
    assert "the device computes 1 of the whole" in text


@pytest.mark.parametrize(
    "forged", [{"task_weights": 5}, {"parts": {"a": 3}}, {"parts": {"a": {"record": 1}}}, {"cell": [1]}]
)
def test_a_forged_record_is_one_line(results, forged):
    with (results / "records.jsonl").open("a") as file:
        file.write(json.dumps(RECORD | forged) + "\n")
    with pytest.raises(DataError, match=r"record 5.*; measure it anew") as caught:
        open_points(str(results))
    assert "\n" not in str(caught.value)


def test_energy_of_records_is_of_their_multiply_accumulates_and_bytes(results):
    with_work(results, (2e8, 1e9), (4e8, 1e9), (0.0, 1e9))
    energy = ["--joules-per-mac", "1e-11", "--joules-per-bit", "1e-7"]
    asked = ["--results", str(results), "--rate-mbps", "1", "--deadline-ms", "1000", "--format", "json"]
    # 2e8 x 10 pJ + 8,000 bit x 100 nJ = 2 + 0.8 mJ, and 4 + 3.2; full offloading 32; local computing 10.
    spent = {p["bytes"]: p["energy_mj"] for p in json.loads(run(*asked, *energy))["points"]}
    assert spent == {1000: pytest.approx(2.8), 4000: pytest.approx(7.2), 40_000: pytest.approx(32)}
    found = json.loads(run(*asked, *energy, "--energy-mj", "7"))
    assert found["best"]["bytes"] == 1000
    assert found["local"]["energy_mj"] == pytest.approx(10)
    assert found["local"]["why"] == "3 mJ too much"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--energy-mj", "1"], "give --joules-per-mac and --joules-per-bit"),
        (["--joules-per-mac", "1e-11"], "go together"),
        (["--joules-per-mac", "-1", "--joules-per-bit", "0"], "at least 0, not -1"),
        (["--energy-mj", "1", "--joules-per-mac", "0", "--joules-per-bit", "0"], "records do"),
        (["--max-device-share", "0.3"], "records do"),
        (["--max-device-share", "-0.3"], "from 0 to 1"),
    ],
)
def test_what_records_do_not_say_is_one_line(results, arguments, says):
    asked = ["plan", "--results", str(results), "--rate-mbps", "1", "--deadline-ms", "45", *arguments]
    refused = CliRunner().invoke(main, asked)
    assert refused.exit_code == 2
    assert says in refused.stderr
    assert refused.stdout == ""


def test_plan_takes_a_results_folder(results):
    assert "stae:frames=8+rans+vit-nano" in run("--results", str(results), "--rate-mbps", "1", "--deadline-ms", "45")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "choose among what?"),
        (["--profile", "stae"], "over which link?"),
        (["--profile", "stae", "--rate-mbps", "1"], "by when?"),
        (["--profile", "stae", "--rate-mbps", "0", "--deadline-ms", "1"], "above 0, not 0"),
        (["--profile", "stae", "--rate-mbps", "1", "--deadline-ms", "-1"], "a deadline is a number of ms above 0"),
        (["--profile", "stea", "--rate-mbps", "1", "--deadline-ms", "1"], "there is no profile 'stea'"),
        (["--profile", "stae", "--rate-mbps", "1", "--deadline-ms", "1", "--loss", "1"], "from 0 to 0.99, not 1"),
        (["--profile", "stae", "--rate-mbps", "1", "--deadline-ms", "1", "--assume", "a=1"], "no assumption 'a'"),
        (["--profile", "stae", "--rate-mbps", "1", "--deadline-ms", "1", "--assume", "a"], "expects NAME=NUMBER"),
        (["--profile", "stae", "--assume", "a=nan"], "a=nan: expects NAME=NUMBER, a number of at least 0"),
        (["--profile", "stae", "--assume", "a=1", "--assume", "a=2"], "a is given twice: 1 and 2"),
        (["--results", "nowhere", "--rate-mbps", "1", "--deadline-ms", "1"], "is no folder"),
        (["--profile", "stae", "--rate-mbps", "1", "--deadline-ms", "1", "--seconds", "1"], "are about a --trace"),
    ],
)
def test_a_wrong_request_is_one_line(arguments, says):
    text = run(*arguments, code=2)
    assert says in text
    assert len(text.strip().splitlines()) == 1


def test_the_profiles_ship_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "planning/profiles/*.toml" in project["tool"]["setuptools"]["package-data"]["semcodec"]
