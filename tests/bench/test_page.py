"""The report as a browser shows it, on a desktop and on a phone, and what its controls do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser, shown
from click.testing import CliRunner

from semcodec.bench import claims, page, results
from semcodec.cli import main

SAMPLES = 60
LOCAL = "/home/somebody/private/cats"


def record(name: str, spec: str, size: float, right: int, **more: Any) -> dict[str, Any]:
    top1 = right / SAMPLES
    return {
        "record": 1, "name": name, "spec": spec, "knobs": {}, "data": LOCAL, "split": "test", "samples": SAMPLES,
        "data_digest": "0123456789abcdef", "top1": top1, "top1_interval": [max(0, top1 - 0.05), min(1, top1 + 0.05)],
        "correct": "1" * right + "0" * (SAMPLES - right), "bytes_total": size, "bytes_payload": size, "bytes_side": 0,
        "bytes_header": 0, "raw_uint8_bytes": 12288, "ratio_uint8": 12288 / size if size else None, "sent_ratio": 1.0,
        "stages_ms": {"head": 1.0, "encode": 4.0, "restore": 2.0, "tail": 9.0}, "device_share": 0.0,
        "weights": {"backbone": {"source": f"given: {LOCAL}/w.safetensors", "digest": "feed"}},
        "key": f"{spec} {size}", **more,
    }  # fmt: skip


def curves() -> list[dict[str, Any]]:
    rows = [
        record("JPEG", f"jpeg:{q}+vit-nano", 400 * q, right) for q, right in ((1, 30), (2, 45), (4, 54), (8, 58))
    ] + [record("WebP", f"webp:{q}+vit-nano", 300 * q, right) for q, right in ((1, 30), (2, 45), (4, 54), (8, 58))]
    rows += [record("AVIF", f"avif:{q}+vit-nano", 410 * q, r) for q, r in ((1, 29), (2, 46), (4, 53), (8, 58))]
    rows += [
        record("ours", f"layered:level={q}+rans+vit-nano@embed", 40 * q, right, device_share=0.38)
        for q, right in ((1, 57), (2, 58), (3, 59))
    ]
    outlier = record("JPEG", "jpeg:100+vit-nano", 9e7, 58)
    return [*rows, outlier, record("PNG", "png+vit-nano", 90000, 59)]


def written(folder: Path, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    command = f"semcodec bench --data {LOCAL} --out '/tmp/x y/runs'"
    (folder / "plan.json").write_text(json.dumps({"bench": 1, "data": LOCAL, "command": command}))
    skips = [{"spec": f"a{i}+b", "reason": f"reason {i} of {LOCAL}/x"} for i in range(12)]
    (folder / "skips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in skips))
    return folder


# --- what needs no browser ---


def test_what_is_shared_tells_no_folder_of_ours(tmp_path: Path):
    found = results.load(written(tmp_path / "r", curves()))
    text = page.render(found)
    assert "somebody" not in text
    assert "<title>semcodec report: cats</title>" in text
    assert "semcodec bench --data cats" in text
    shared = CliRunner().invoke(main, ["report", str(tmp_path / "r"), "--format", "md"]).stdout
    assert "somebody" not in shared.partition("## Skipped")[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--data /home/a/b --out=/tmp/c", "--data b --out=c"),
        ("'/home/a b/c'", "'c'"),
        ("~/data/x, C:\\users\\me\\y", "x, y"),
        ("timm/resnet50 and 8/10, a/b", "timm/resnet50 and 8/10, a/b"),
    ],
)
def test_folders_are_left_out_of_absolute_paths(text: str, told: str):
    assert results.without_folders(text) == told


def test_the_headline_says_how_many_bytes_fewer_and_how_sure_that_is(tmp_path: Path):
    (group,) = results.load(written(tmp_path / "r", curves())).groups
    found = {claim.curve: claim for claim in claims.claims(group, "JPEG")}
    assert found["WebP"].ratio == pytest.approx(0.75)
    assert (found["WebP"].low, found["WebP"].high) == pytest.approx((0.75, 0.75))  # the same samples are right
    assert str(found["WebP"]).startswith("WebP needs 25 % (25 to 25) fewer bytes than JPEG at 50.0 to 96.7 % top-1")
    assert not found["AVIF"].certain
    assert str(found["AVIF"]).startswith("60 samples cannot tell AVIF from JPEG: between ")
    told = claims.claims(group)
    assert (told[0].curve, told[0].anchor) == ("ours", "WebP")  # the best of those whose device computes nothing


def test_intervals_are_those_of_resampling_by_hand(tmp_path: Path):
    """Two curves of one point each: the ratio of bytes does not depend on the samples."""
    rows = [record("a", "jpeg:1+vit-nano", 100, 30), record("b", "jpeg:2+vit-nano", 50, 30)]
    (group,) = results.load(written(tmp_path / "r", rows)).groups
    (claim,) = claims.claims(group, "a")
    assert (claim.ratio, claim.low, claim.high, *claim.reached) == pytest.approx((0.5,) * 5)


def test_nothing_is_claimed_of_records_that_do_not_tell(tmp_path: Path):
    rows = [row | {"correct": None} for row in curves()]
    (group,) = results.load(written(tmp_path / "r", rows)).groups
    assert claims.claims(group) == []
    assert claims.headline([]) == ""


def test_the_anchor_and_each_curves_best_are_followed(tmp_path: Path):
    (group,) = results.load(written(tmp_path / "r", curves())).groups
    chosen = {point.spec for point in results.followed(group, "JPEG")}
    assert chosen >= {"jpeg:8+vit-nano", "webp:8+vit-nano", "avif:8+vit-nano", "png+vit-nano"}
    assert "layered:level=3+rans+vit-nano@embed" in chosen
    many = [record(f"c{i:02}", f"jpeg:{i + 1}+vit-nano", 100 + i, 30 + i) for i in range(20)]
    (group,) = results.load(written(tmp_path / "m", many)).groups
    chosen = {point.curve for point in results.followed(group, "c00")}
    assert len(chosen) == results.FOLLOWED_CURVES
    assert "c00" in chosen


def test_the_models_own_accuracy_is_known_where_something_changes_nothing(tmp_path: Path):
    (group,) = results.load(written(tmp_path / "r", curves())).groups
    assert results.uncompressed(group) == {"vit-nano": 59 / 60}
    (group,) = results.load(written(tmp_path / "w", [r for r in curves() if r["name"] != "PNG"])).groups
    assert results.uncompressed(group) == {}


# --- in a browser ---


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = written(tmp_path_factory.mktemp("page") / "report", curves())
    done = CliRunner().invoke(main, ["report", str(folder), "--bd", "JPEG"])
    assert done.exit_code == 0, done.output
    return folder / "report.html"


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_shown_whole_and_asks_nobody(chromium: Any, report: Path, size: str, scheme: str):
    with shown(chromium, report, size, scheme) as found:
        found.check()
        assert found.page.inner_text("h1") == "cats, test"
        assert found.page.inner_text("#headline").startswith("ours needs 9")
        cut = "[...document.querySelectorAll('pre')].map(e => e.scrollWidth - e.clientWidth)"
        assert max(found.page.evaluate(cut)) <= 0
        if size == "desktop":
            right = "document.querySelector('#table thead th:last-child').getBoundingClientRect().right"
            assert found.page.evaluate(right) <= found.page.evaluate(
                "document.querySelector('.tall').getBoundingClientRect().right"
            )


def test_a_curve_has_one_colour_everywhere(chromium: Any, report: Path):
    with shown(chromium, report) as found:
        mine = "p => [...document.querySelectorAll(p)].map(e => getComputedStyle(e).backgroundColor)"
        legend = found.page.evaluate(mine, "#chosen .swatch")
        bars = found.page.evaluate(mine, "#bars .bar > div:first-child .swatch")
        assert legend == bars
        fill = "getComputedStyle(e.querySelector('svg *')).fill"
        marks = f"[...document.querySelectorAll('#curves button')].map(e => [e.innerText, {fill}])"
        colours = {text.split("\n")[0].strip(): fill for text, fill in found.page.evaluate(marks)}
        rings = "[...document.querySelectorAll('#rate circle[r=\"9.5\"]')].map(e => getComputedStyle(e).stroke)"
        assert set(found.page.evaluate(rings)) <= set(colours.values())
        assert set(legend) <= set(colours.values())


def test_what_a_view_hides_is_counted(chromium: Any, report: Path):
    with shown(chromium, report) as found:
        marks = "document.querySelectorAll('#rate svg > [stroke=\"var(--card)\"]').length"
        found.page.select_option("#view", "all")
        assert (found.page.evaluate(marks), found.page.inner_text("#hidden")) == (17, "")
        found.page.select_option("#view", "fair")
        assert (found.page.evaluate(marks), found.page.inner_text("#hidden")) == (16, "hides 1 of 17 points")
        found.page.select_option("#view", "front")
        hidden = int(found.page.inner_text("#hidden").split()[1])
        assert found.page.evaluate(marks) == 17 - hidden < 17


def test_the_devices_share_can_be_bounded(chromium: Any, report: Path):
    with shown(chromium, report) as found:
        assert found.page.inner_text("#count") == "17 of 17"
        found.page.fill("#share", "0.2")
        assert found.page.inner_text("#count") == "14 of 17"
        assert "layered" not in found.page.inner_text("#table")
        assert "at most 0.20" in found.page.inner_text(".switches")
        found.check()


def test_long_lists_fold_and_the_uncompressed_model_has_a_line(chromium: Any, report: Path):
    with shown(chromium, report) as found:
        assert "8 more reasons" in found.page.inner_text("#missing")
        assert "uncompressed: 98.3 %" in found.page.evaluate("document.querySelector('#rate svg').textContent")
