"""The report says what the records say: curves, fronts, deltas, times, and one page that needs nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from semcodec.bench import deltas, page, results
from semcodec.cli import main
from semcodec.errors import DataError, UsageError

FORMS = ("html", "csv", "md", "json", "compressai")
PLAN = {"bench": 1, "data": "digits-motion", "command": "semcodec bench --data digits-motion --out here"}


def record(spec: str, top1: float, size: float, **more: Any) -> dict[str, Any]:
    """A record of ``semcodec eval`` on 100 samples of 64 x 64 RGB pixels."""
    return {
        "record": 1,
        "key": f"{spec} {size}",
        "spec": spec,
        "knobs": {},
        "data": "digits-motion",
        "split": "test",
        "samples": 100,
        "data_digest": "0123456789abcdef",
        "top1": top1,
        "top1_interval": [max(0.0, top1 - 0.05), min(1.0, top1 + 0.05)],
        "bytes_total": size,
        "bytes_payload": size - 30,
        "bytes_side": 10,
        "bytes_header": 20,
        "raw_uint8_bytes": 12288,
        "ratio_uint8": 12288 / size if size else None,
        "sent_ratio": 1.0,
        "stages_ms": {
            "head": 1.0,
            "encode": 4.0,
            "entropy_encode": 2.0,
            "entropy_decode": 1.5,
            "recover": 2.5,
            "tail": 9.0,
        },
        "versions": {"semcodec": "0.1.0", "torch": "2.6.0"},
        "machine": {"platform": "here", "threads": 1},
        "weights": {"backbone": {"source": "shipped: x", "digest": "feedfeedfeedfeed"}},
        "batch": 8,
        "formats": {"encoder/stae": 2},
        **more,
    }


CURVE = [(1000, 0.5), (2000, 0.7), (4000, 0.8), (8000, 0.85)]


def curve(name: str, factor: float = 1.0, gain: float = 0.0) -> list[dict[str, Any]]:
    return [record(f"stae:frames={i}+rans+vit-nano", a + gain, s * factor, name=name) for i, (s, a) in enumerate(CURVE)]


def written(folder: Path, records: list[dict[str, Any]], plan: dict[str, Any] | None = PLAN) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if plan:
        (folder / "plan.json").write_text(json.dumps(plan))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    failed = {"record": 1, "cell": "c", "spec": "h264+vit-nano", "data": "digits-motion", "failed": "out of memory"}
    made = written(tmp_path / "run", [*curve("a"), *curve("b", factor=0.5), failed])
    skip = {"spec": "stae+vit-nano-server", "reason": "stae sends video, vit-nano-server takes an image"}
    (made / "skips.jsonl").write_text(json.dumps(skip) + "\n")
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def data_of(text: str) -> dict[str, Any]:
    """What the page's script draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


# --- tasks ---


def tasks_of_one_stream() -> list[dict[str, Any]]:
    """Points of two codecs for two tasks each: the second needs half of the bytes for the same."""
    right = {accuracy: "1" * round(100 * accuracy) + "0" * (100 - round(100 * accuracy)) for _, accuracy in CURVE}
    rows = []
    for name, factor in (("a", 1.0), ("b", 0.5)):
        for i, (size, accuracy) in enumerate(CURVE):
            spec = f"layered:layers={i + 1}+rans+cls-nano@d3+embed-nano@d3"
            row = record(spec, accuracy, size * factor, name=name, task="classification", correct=right[accuracy])
            other = {**row, "key": f"{row['key']} too", "task": "retrieval", "recall1": accuracy + 0.1}
            del other["top1"], other["correct"]
            rows += [row, other | {"hits": "1" * 10 + right[accuracy][:-10], "recall1_interval": [0.4, 1.0]}]
    return rows


def test_each_task_has_a_group_and_their_weighted_mean_comes_first(tmp_path: Path):
    made = written(tmp_path / "run", tasks_of_one_stream())
    assert [g["metric"] for g in json.loads(run(made, "--format", "json").stdout)["groups"]] == ["top1", "recall1"]
    weighed = ["--task", "classification=1,retrieval=3"]
    mean, *others = json.loads(run(made, "--format", "json", *weighed).stdout)["groups"]
    assert [mean["metric"], *(g["metric"] for g in others)] == ["weighted_mean", "top1", "recall1"]
    first = mean["points"][0]
    assert first["weighted_mean"] == pytest.approx(0.5 + 0.75 * 0.1)
    assert first["weighted_mean_interval"][0] < first["weighted_mean"] < first["weighted_mean_interval"][1]
    assert [p["pareto"] for p in mean["points"]].count(True) == 4
    text = run(made, "--format", "md", *weighed).stdout
    assert "weighted mean of the tasks' scores, %" in text
    assert "- weights of tasks: classification 1.0, retrieval 3.0" in text
    [one] = json.loads(run(made, "--format", "json", "--task", "retrieval").stdout)["groups"]
    assert one["metric"] == "recall1"


def test_a_weighted_mean_has_the_sentence_and_the_deltas_of_any_score(tmp_path: Path):
    made = written(tmp_path / "run", tasks_of_one_stream())
    weighed = ["--task", "classification=1,retrieval=1"]
    done = run(made, "-o", tmp_path / "r.html", "--bd", "a", *weighed)
    assert done.exit_code == 0, done.output
    mean = data_of((tmp_path / "r.html").read_text())["groups"][0]
    assert mean["headline"].startswith("b needs 50 % (50 to 50) fewer bytes than a at ")
    [delta] = mean["deltas"]["rows"]
    assert delta["rate"] == pytest.approx(-50) and delta["rate_interval"] == pytest.approx([-50, -50])


def test_plots_of_each_task_have_names_of_their_own(tmp_path: Path):
    made = written(tmp_path / "run", tasks_of_one_stream())
    done = run(made, "-o", tmp_path / "r.html", "--plots", tmp_path / "plots", "--task", "classification=1,retrieval=1")
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in (tmp_path / "plots").glob("accuracy*.svg"))
    assert names == [f"accuracy-digits-motion-{score}.svg" for score in ("recall1", "top1", "weighted-mean")]


def test_a_task_that_was_not_measured_is_one_line(tmp_path: Path):
    done = run(written(tmp_path / "run", tasks_of_one_stream()), "--task", "detection")
    assert done.exit_code == 2
    assert "has no task 'detection'; it has classification, retrieval" in done.stderr
    assert not (tmp_path / "run" / "report.html").exists()


# --- curves and fronts ---


@pytest.mark.parametrize(
    ("spec", "knobs", "stem"),
    [
        ("stae:coding=webp,frames=8,quality=30+rans+vit-nano", {}, "stae+rans+vit-nano"),
        ("webp:50,frames=4+vit-tiny:112", {}, "webp+vit-tiny:112"),
        ("cls-attn+attention-sum@keep:0.9+rans+vit-nano-server", {}, "cls-attn+rans+vit-nano-server"),
        ("cls-attn+rans+vit-nano-server", {}, "cls-attn+rans+vit-nano-server"),
        (
            "cls-attn:keep=9+top-k@keep+min-entropy:0.4+rans+vit-nano",
            {},
            "cls-attn+top-k@keep+min-entropy+rans+vit-nano",
        ),
        ("gone:level=3,size=7+vit-nano", {"level": 3}, "gone:size=7+vit-nano"),
    ],
)
def test_a_curve_is_a_spec_without_what_differs_from_call_to_call(spec: str, knobs: dict[str, int], stem: str):
    assert results.stem(spec, knobs) == stem


def test_front_by_hand(tmp_path: Path):
    sizes = [(100, 0.5), (100, 0.4), (200, 0.5), (300, 0.8), (400, 0.7), (500, 0.9), (0, 0.3)]
    records = [record(f"webp:{i}+vit-nano", a, s) for i, (s, a) in enumerate(sizes)]
    (group,) = results.load(written(tmp_path / "r", records)).groups
    assert [(p.bytes, p.accuracy) for p in group.points if p.front] == [(0, 0.3), (100, 0.5), (300, 0.8), (500, 0.9)]


def test_data_sets_are_kept_apart(tmp_path: Path):
    other = record("webp+vit-nano", 0.1, 10, data_digest="ffff")
    groups = results.load(written(tmp_path / "r", [*curve("a"), other])).groups
    assert [len(group.points) for group in groups] == [4, 1]
    assert all(point.front for group in groups for point in group.points)


def test_of_a_point_that_was_measured_twice_the_last_counts(tmp_path: Path):
    (group,) = results.load(
        written(tmp_path / "r", [record("webp+vit-nano", a, 100, cell="x") for a in (0.5, 0.6)])
    ).groups
    assert [p.accuracy for p in group.points] == [0.6]


def test_completion_time_by_hand(folder: Path):
    (group,) = results.load(folder).groups
    point = next(p for p in group.points if p.bytes == 1000)
    assert sum(point.device_ms.values()) == 7.0
    assert sum(point.server_ms.values()) == 13.0
    assert point.ms(1.0) == pytest.approx(7 + 8 + 13)  # 8000 bit at 10^6 bit/s
    local, full = group.baselines
    assert (local.ms(0.1), local.ms(1000)) == (10.0, 10.0)
    assert full.ms(1.0) == pytest.approx(12288 * 8 / 1000 + 10)


def test_local_computing_is_timed_as_plan_does(tmp_path: Path):
    """By the record with the most of the backbone's time, not by the one with the most bytes."""
    stages = ({"head": 1.0, "tail": 30.0}, {"head": 1.0, "tail": 50.0}, {"head": 0.5, "tail": 3.0})
    specs = ("webp:1+vit-nano", "webp:9+vit-nano", "other:1+thing+vit-nano")
    rows = [
        record(spec, 0.5, size, cell=spec) | {"stages_ms": took}
        for spec, size, took in zip(specs, (10, 20, 9000), stages, strict=True)
    ]
    (group,) = results.load(written(tmp_path / "r", rows)).groups
    assert group.baselines[0].ms(1) == pytest.approx(1 + 40)  # the median of two tails that compute the same


def test_detection_is_told_by_its_own_metric(tmp_path: Path):
    one = record("jpeg+yolo", 0.0, 100)
    del one["top1"], one["top1_interval"]
    (group,) = results.load(written(tmp_path / "r", [{**one, "map50": 0.4, "map50_interval": [0.3, 0.5]}])).groups
    assert (group.metric, group.points[0].accuracy, group.points[0].low) == ("map50", 0.4, 0.3)


# --- Bjøntegaard deltas ---


def test_half_the_bytes_is_a_rate_of_minus_fifty_percent(folder: Path):
    ((row,),) = deltas.against(results.load(folder), "a").values()
    assert row.curve == "b"
    assert row.rate == pytest.approx(-50.0)
    assert row.accuracy is not None and row.accuracy > 0
    assert row.overlap == 1.0


def test_two_points_more_at_every_rate_are_two_points(tmp_path: Path):
    found = results.load(written(tmp_path / "r", [*curve("a"), *curve("b", gain=0.02)]))
    ((row,),) = deltas.against(found, "a").values()
    assert row.accuracy == pytest.approx(2.0)
    assert row.rate is not None and row.rate < 0
    ((back,),) = deltas.against(found, "b").values()
    assert back.accuracy == pytest.approx(-2.0)
    assert (1 + row.rate / 100) * (1 + back.rate / 100) == pytest.approx(1)


def test_only_the_curves_front_counts(tmp_path: Path):
    worse = record("stae:frames=9+rans+vit-nano", 0.1, 9000, name="b")
    found = results.load(written(tmp_path / "r", [*curve("a"), *curve("b", factor=0.5), worse]))
    ((row,),) = deltas.against(found, "a").values()
    assert (row.points, row.rate) == (4, pytest.approx(-50.0))


def test_ranges_that_do_not_overlap_are_said_to(tmp_path: Path):
    apart = results.load(written(tmp_path / "r", [*curve("a"), *curve("b", factor=100)]))
    ((row,),) = deltas.against(apart, "a").values()
    assert row.accuracy is None
    assert row.rate == pytest.approx(9900)
    assert row.note == "the ranges of bytes do not overlap"


def test_too_few_points_are_refused(tmp_path: Path):
    found = results.load(written(tmp_path / "r", [*curve("a"), *curve("b")[:3]]))
    ((row,),) = deltas.against(found, "a").values()
    assert row.rate is row.accuracy is None
    assert "3 where the method needs 4" in row.note
    with pytest.raises(UsageError, match="--bd b: too few points on its Pareto front, 3 where the method needs 4"):
        deltas.against(found, "b")
    with pytest.raises(UsageError, match="there is no curve 'c'; there are a, b"):
        deltas.against(found, "c")


# --- the page ---


def test_the_page_needs_nothing_else(folder: Path):
    done = run(folder)
    assert done.exit_code == 0, done.output
    text = (folder / "report.html").read_text("utf-8")
    assert not re.search(
        r"https?:|//[a-z0-9-]+\.[a-z]|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")|\bsrc=", text
    )
    assert "default-src 'none'" in text
    assert "{{" not in text
    assert list(folder.glob(".*")) == []  # nothing half written is left behind


def test_the_page_holds_what_was_measured_and_what_was_not(folder: Path):
    found = data_of(page.render(results.load(folder)))
    (group,) = found["groups"]
    assert group["curves"] == ["b", "a"]  # in order of bytes
    assert len(group["points"]) == 8
    assert sum(p["front"] for p in group["points"]) == 4
    assert group["points"][0]["parts"] == [470, 10, 20]
    assert found["failures"] == [{"spec": "h264+vit-nano", "reason": "out of memory"}]
    assert found["skips"][0]["spec"] == "stae+vit-nano-server"
    fields = dict(group["reproduce"]["fields"])
    assert group["reproduce"]["commands"] == [PLAN["command"]]
    assert "0123456789abcdef" in fields["data"] and "feedfeedfeedfeed" in fields["weights"]
    assert fields["machine"] == "platform here, threads 1"


def test_what_records_say_cannot_end_the_script(tmp_path: Path):
    evil = "</script><script>alert(1)</script><!--"
    found = results.load(written(tmp_path / "r", [record("webp+vit-nano", 0.5, 10, name=evil)]))
    text = page.render(found)
    assert "alert(1)" in text
    assert "</script><script>alert" not in text
    assert data_of(text)["groups"][0]["curves"] == [evil]


def test_what_sends_nothing_and_has_no_ratio_is_drawn(tmp_path: Path):
    silent = record("webp+vit-nano", 0.5, 0, bytes_payload=0, bytes_side=0, bytes_header=0, sent_ratio=0.0)
    (point,) = data_of(page.render(results.load(written(tmp_path / "r", [silent]))))["groups"][0]["points"]
    assert (point["bytes"], point["ratio"], point["front"]) == (0, None, True)


# --- other forms ---


def test_csv_has_a_line_for_each_point(folder: Path):
    rows = list(csv.DictReader(io.StringIO(run(folder, "--format", "csv").stdout)))
    assert len(rows) == 8
    assert {row["curve"] for row in rows} == {"a", "b"}
    assert (float(rows[0]["bytes_total"]), float(rows[0]["accuracy"]), rows[0]["pareto"]) == (500.0, 0.5, "True")
    both = list(csv.DictReader(io.StringIO(run(folder, "--format", "csv", "--bd", "a").stdout)))
    assert [row["curve"] for row in both] == [row["curve"] for row in rows]  # beside the points, not instead
    assert {row["bd_anchor"] for row in both} == {"a"}
    assert {row["bd_rate"] for row in both if row["curve"] == "a"} == {""}
    assert {round(float(row["bd_rate"])) for row in both if row["curve"] == "b"} == {-50}


def test_markdown(folder: Path):
    text = run(folder, "--format", "md", "--bd", "a").stdout
    assert "| **`stae:frames=0+rans+vit-nano`** | b | 50.0 | 45.0 - 55.0 | 500.0 |" in text
    assert "| b | 4 | -50.00 % |" in text
    assert "| h264+vit-nano | out of memory |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith(("| **", "| `"))}
    assert widths == {10}


def test_latex(folder: Path):
    text = run(folder, "--format", "latex", "--bd", "a").stdout
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    assert r"b & \texttt{stae:frames=0+\allowbreak{}rans+\allowbreak{}vit-nano} & \textbf{50.0} & 45.0--55.0" in text
    assert "b & ${-}50.0$" in text
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in rows} == {5, 4}


@pytest.mark.parametrize("nasty", ["50 % & more_of #1 {x} ~ ^ $", r"\input{/etc/passwd}", "a\\\\b"])
def test_latex_finds_no_command_in_what_records_say(tmp_path: Path, nasty: str):
    found = run(written(tmp_path / "r", [*curve(nasty), *curve("b")]), "--format", "latex", "--bd", "b").stdout
    row = next(line for line in found.splitlines() if "stae" in line and not line.startswith("b "))
    name = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", row.split(" & ")[0])
    assert not re.search(r"[\\&%$#_{}~^]", name)


def test_deltas_have_intervals_by_resamples(tmp_path: Path):
    """Of the same samples right, a curve at half the bytes has no spread; where they differ it has one."""

    def measured(name: str, factor: float, shift: int) -> list[dict[str, Any]]:
        rows = []
        for i, (size, accuracy) in enumerate(CURVE):
            right = round(100 * accuracy)
            bits = "".join("1" if (k - shift) % 100 < right else "0" for k in range(100))
            rows.append(record(f"stae:frames={i}+rans+vit-nano", accuracy, size * factor, name=name, correct=bits))
        return rows

    found = results.load(written(tmp_path / "r", [*measured("a", 1, 0), *measured("b", 0.5, 0), *measured("c", 1, 40)]))
    rows = {row.curve: row for row in next(iter(deltas.against(found, "a").values()))}
    assert rows["b"].rate_interval == pytest.approx((-50, -50))
    low, high = rows["c"].rate_interval or (0.0, 0.0)
    assert low < -1 and high > 1


def test_json_has_the_records_as_they_are(folder: Path):
    found = json.loads(run(folder, "--format", "json", "--bd", "a").stdout)
    (group,) = found["groups"]
    point = group["points"][0]
    assert {k: point[k] for k in ("spec", "stages_ms", "weights")} == {
        k: curve("b", 0.5)[0][k] for k in ("spec", "stages_ms", "weights")
    }
    assert group["deltas"][0]["rate"] == pytest.approx(-50)
    assert len(found["failures"]) == len(found["skips"]) == 1


def test_compressais_form(folder: Path):
    both = json.loads(run(folder, "--format", "compressai").stdout)
    assert [c["name"] for c in both] == ["b", "a"]
    one = json.loads(run(folder, "--format", "compressai", "--curve", "a").stdout)
    assert one["name"] == "a"
    assert one["results"]["top1"] == [0.5, 0.7, 0.8, 0.85]
    assert one["results"]["bpp"] == pytest.approx([8 * s / 4096 for s, _ in CURVE])
    assert one["results"]["encoding_time"] == pytest.approx([0.007] * 4)


def test_plots(folder: Path, tmp_path: Path):
    done = run(folder, "-o", tmp_path / "page.html", "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    drawn = {f"{chart}.{form}" for chart in ("accuracy", "completion", "stages") for form in ("png", "svg", "pdf")}
    assert names == drawn | {"accuracy.pgf", "completion.pgf"}
    starts = {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-", ".pgf": b"% \\us"}
    for path in (tmp_path / "plots").iterdir():
        assert path.read_bytes()[:5] == starts[path.suffix]
    text = (tmp_path / "plots" / "accuracy.pgf").read_text()
    assert text.count("\\addplot") == 4  # points and a line of each curve
    assert "500 50 5 5" in text  # bytes, accuracy and its interval
    assert text.count("{") == text.count("}")


def test_a_file_of_records_is_read_as_well(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in curve("a")))
    assert run(path).exit_code == 0
    found = data_of((tmp_path / "mine.html").read_text("utf-8"))
    assert "semcodec eval" in found["groups"][0]["reproduce"]["commands"][0]


# --- bad input ---


def test_half_a_line_at_the_end_is_passed_over(folder: Path):
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"record": 1, "spec": "st')
    done = run(folder, "--format", "csv")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 9
    assert "half" in done.stderr


FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\tx", "\rx"]
MARKS = ["a|b", "<script>alert(1)</script>", "[a](javascript:b)", "a`b", "&lt;"]
WORDS = {"data", "curve", "anchor", "spec", "note", "data_digest", "split", "metric", "pareto", "bd_anchor", "bd_note"}


@pytest.mark.parametrize("nasty", [*FORMULAS, *MARKS])
def test_what_records_say_is_text_in_spreadsheets_and_markdown(tmp_path, nasty):
    """Names and reasons come from others; numbers stay numbers, below zero too."""
    rows = [row | {"data": nasty} for row in [*curve(nasty), *curve("b", 2.0)]]
    failed = {"record": 1, "cell": "f", "spec": nasty, "data": nasty, "failed": nasty}
    folder = written(tmp_path / "r", rows)
    (folder / "skips.jsonl").write_text(json.dumps({"spec": nasty, "reason": nasty}) + "\n")
    for more in ([], ["--bd", nasty], ["--bd", "b"]):
        text = CliRunner().invoke(main, ["report", str(folder), "--format", "csv", *more]).stdout
        for row in csv.DictReader(io.StringIO(text, newline="")):
            for name, cell in row.items():
                assert not cell or (name not in WORDS and isinstance(float(cell), float)) or cell[0] not in "=+-@\t\r\n"
        assert nasty in MARKS or "'" + nasty.replace("\r", " ") in text
    (folder / "records.jsonl").open("a").write(json.dumps(failed | {"spec": "png+vit-nano"}) + "\n")
    text = CliRunner().invoke(main, ["report", str(folder), "--format", "md", "--bd", "b"]).stdout
    outside = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)
    assert "<script" not in outside and "](" not in outside.replace("\\](", "")
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (3, 7, 10), line


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_report_is_one_line(tmp_path: Path, form: str):
    (tmp_path / "empty").mkdir()
    only = {"record": 1, "cell": "c", "spec": "x+y", "data": "d", "failed": "out of memory"}
    cases = {
        tmp_path / "none": "is not there",
        tmp_path / "empty": "no results folder",
        written(tmp_path / "r", []): "has no records",
        written(tmp_path / "f", [only]): "all 1 cells failed, the first as out of memory",
        written(tmp_path / "v", curve("a"), {"bench": 99}): "form 99",
        written(tmp_path / "w", [{**record("a+b", 0.5, 1), "record": 2}]): "form 2",
        written(tmp_path / "m", [{**record("a+b", 0.5, 1), "top1": None}]): "has none of top1",
        written(tmp_path / "n", [{**record("a+b", 0.5, 1), "bytes_total": "many"}]): "lacks a spec, bytes_total",
    }
    for path, message in cases.items():
        done = run(path, "--format", form, "-o", tmp_path / "out")
        assert done.exit_code == 1, path
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_damage_in_the_middle_is_an_error_that_names_the_line(folder: Path):
    path = folder / "records.jsonl"
    path.write_text("{half\n" + path.read_text())
    with pytest.raises(DataError, match="line 1"):
        results.load(folder)


def test_a_wrong_request_is_one_line(folder: Path):
    for arguments in (["--bd", "nobody"], ["--curve", "nobody"], ["--bd", "a", "--format", "compressai"]):
        done = run(folder, *arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("option", "package"), [("--bd=a", "bjontegaard"), ("--plots=plots", "matplotlib")])
def test_what_an_extra_would_bring_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, package: str):
    for name in (package, "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(folder)
    done = run(folder, option)
    assert done.exit_code == 1
    assert f"need {package}: pip install 'semcodec[report]'" in done.stderr
    assert not (folder / "report.html").exists()


def test_reporting_imports_nothing_heavy(folder: Path):
    code = "import sys; from semcodec.cli import main; main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    heavy = {"torch", "timm", "matplotlib", "scipy", "bjontegaard"}
    for arguments, more in ((["--help"], {"numpy", "pluggy", "semcodec.bench"}), ([str(folder)], set())):
        done = subprocess.run(
            [sys.executable, "-c", code, "report", *arguments], capture_output=True, text=True, check=True
        )
        assert not (heavy | more) & set(done.stdout.split())
