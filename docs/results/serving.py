"""An adaptive sender and fixed ones over links of several rates: measures serving.jsonl, and writes serving.md of it.

    semcodec bench "stae:coding=raw+rans+vit-nano" --sweep stae.frames=1,2,4,8,16 --data digits-motion --limit 120 \
        -j 1 --out RESULTS
    python docs/results/serving.py RESULTS [--deadline-ms 1000] [--samples 30]
    python docs/results/serving.py                                               the page alone, from serving.jsonl

A real ``semcodec serve`` in a process of its own, devices in this one, and between them a relay that carries the uplink
at a trace's rate and either way 15 ms late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.records import read
from semcodec.pipeline.device import Device
from semcodec.planning.link import Link as Rates
from semcodec.planning.live import LiveDeadline
from semcodec.planning.matching import matching
from semcodec.planning.operating_points import open_points
from semcodec.planning.plan import replay
from semcodec.serving.link import Connecting, Link
from semcodec.serving.meter import Meter

HERE = Path(__file__).parent
SPEC = "stae:coding=raw+rans+vit-nano"
RTT_MS = 30.0
FADING = "markov:low=1,high=20,stay_s=2,seconds=60,seed=1"
LINKS = {
    "1 Mbit/s": Rates.fixed(1),
    "8 Mbit/s": Rates.fixed(8),
    "20 Mbit/s": Rates.fixed(20),
    "fading": Rates.trace(FADING),
}


class Relay:
    """Carries bytes to a server and back: up at the rates of a link, from its first byte on, and each way half of
    ``RTT_MS`` late."""

    def __init__(self, port: int, rates: Rates) -> None:
        self.port, self.rates = port, rates
        self.began: float | None = None
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        self.loop.run_until_complete(self._serve())
        self.loop.run_forever()

    async def _serve(self) -> None:
        self.server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self._ready.set()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self._pump(near, out, True), self._pump(far, back, False), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        """Take bytes as they come, and give them on when a link would have carried them, though this task runs late."""
        free = 0.0
        while data := await reader.read(1 << 16):
            now = time.monotonic()
            self.began = self.began or now
            free = max(free, now)
            if up:
                free += float(self.rates.ms(len(data), free - self.began)) / 1000
            self.loop.call_at(free + RTT_MS / 2000, writer.write, data)
        self.loop.call_at(max(free, time.monotonic()) + RTT_MS / 1000, writer.close)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


def measure(results: Path, deadline_ms: float, samples: int) -> Iterator[dict[str, Any]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "semcodec", "serve", SPEC, "--port", "0", "--offline", "--no-page"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            device = Device.load(compose_spec(SPEC), offline=True)
            dataset = open_dataset("digits-motion", "test", device.request)
            pixels, labels = dataset.batch(range(0, 120, 120 // samples))
            points = matching(open_points(str(results)), str(results), device.composition)
            runs = [("adaptive", None), *((str(p.knobs["frames"]), p) for p in points)]
            for name, rates in LINKS.items():
                fps = 1000 / deadline_ms if len(rates.times_s) > 1 else None  # of a trace the same part for all
                for label, point in runs:
                    relay = Relay(port, rates)
                    try:
                        yield {
                            "link": name,
                            "sender": label,
                            "deadline_ms": deadline_ms,
                            **run(relay.url, device, pixels, labels, point, points, deadline_ms, fps),
                        }
                    finally:
                        relay.close()
        finally:
            server.terminate()
            server.wait(60)


def run(
    url: str,
    device: Device,
    pixels: Any,
    labels: Any,
    point: Any,
    points: Sequence[Any],
    deadline_ms: float,
    fps: float | None,
) -> dict[str, Any]:
    """One sender, a sample at a time, each when the one before it is answered. fps: and not before its time."""
    meter = chooser = None
    if point is None:
        meter = Meter()
        chooser = LiveDeadline(points, None, meter.state, deadline_ms)
    link = Link(url, device, in_flight=1, meter=meter, chooser=chooser)
    call = {} if point is None else dict(point.knobs)
    with Connecting(link):
        for _ in range(2):  # the first answers wait for libraries
            link.send(pixels[0], **({} if point is None else call))
        if chooser is not None:
            chooser.taken.clear()
        answers = list(link.stream(pixels, fps=fps, **call))
        state = None if meter is None else meter.state()
    right = [a.prediction is not None and a.prediction.index == labels[a.sequence - 2] for a in answers]
    hits = [a.total_ms <= deadline_ms for a in answers]
    ends = [a.total_ms - a.ms["link"] for a in answers]
    return {
        "samples": len(answers),
        "hits": sum(hits) / len(hits),
        "accuracy": sum(r for r, h in zip(right, hits, strict=True) if h) / max(1, sum(hits)),
        "useful": sum(r and h for r, h in zip(right, hits, strict=True)) / len(hits),
        "median_ms": sorted(a.total_ms for a in answers)[len(answers) // 2],
        "ends_ms": sum(ends) / len(ends),
        "bytes": sum(a.encoded.bytes_total for a in answers) / len(answers),
        "chosen": {} if chooser is None else {_frames(spec): n for spec, n in chooser.taken.items()},
        "rate_mbps": None if state is None else state.mbps,
        "rtt_ms": None if state is None else state.rtt_ms,
    }


def _frames(spec: str) -> str:
    return str(compose_spec(spec).call["frames"])


def forecast(results: Path, deadline_ms: float, samples: int, ends_ms: float | None) -> Iterator[dict[str, Any]]:
    """What ``plan --trace`` says. ends_ms: by how much both ends were slower in the run than in the bench, mean."""
    profile = open_points(str(results))
    if ends_ms is not None:
        points = [replace(p, device_ms={**p.device_ms, "busy": ends_ms}) for p in profile.points]
        profile = replace(profile, points=tuple(points))
    for name, rates in LINKS.items():
        # plan's round trip is there and back; half of it is on its way there, and an answer needs the other half.
        link = replace(rates, rtt_ms=2 * RTT_MS)
        for fared in replay(profile, link, deadline_ms, deadline_ms, samples * deadline_ms / 1000):
            label = "adaptive" if fared.label == "adaptive" else _frames(fared.label)
            yield {
                "link": name,
                "sender": label,
                "forecast": "plan" if ends_ms is None else "plan, ends as in the run",
                "hits": fared.hits,
                "accuracy": fared.accuracy,
                "useful": fared.useful,
            }


def page(rows: list[dict[str, Any]]) -> str:
    measured = {(r["link"], r["sender"]): r for r in rows if "samples" in r and "link" in r}
    plans = {(r["forecast"], r["link"], r["sender"]): r for r in rows if "forecast" in r}
    points = [r for r in rows if "point" in r]
    senders = ["adaptive", *(str(r["point"]) for r in points)]
    [about] = [r for r in rows if "about" in r]
    head = f"""Made by `serving.py` from `serving.jsonl`. A real `semcodec serve` and a device, between them a relay:
        the uplink at the rate of the row, {RTT_MS:.0f} ms round trip. {about["samples"]} clips of digits-motion by
        `{SPEC}`, one at a time, each to be answered within {about["deadline_ms"]:.0f} ms, late answers counted as
        wrong. `frames` of a fixed sender is set for all clips; `send --adapt` sets it for each by what it measures. The
        fading link is `{FADING}`."""
    lines = ["# A sender that adapts to its link", "", filled(head), ""]
    lines += ["What `semcodec bench` had measured of each point, on the same machine:", ""]
    lines += table(
        "frames | accuracy % | bytes | device ms | server ms",
        [
            (
                r["point"],
                f"{100 * r['accuracy']:.1f}",
                f"{r['bytes']:,.0f}",
                f"{r['device_ms']:.0f}",
                f"{r['server_ms']:.0f}",
            )
            for r in points
        ],
    )
    for name in LINKS:
        cells = []
        for sender in senders:
            r = measured[name, sender]
            plan, busy = (plans[kind, name, sender] for kind in ("plan", "plan, ends as in the run"))
            shares = [r["hits"], r["accuracy"], r["useful"]]
            foretold = [f"{100 * p['hits']:.0f} and {100 * p['useful']:.0f}" for p in (plan, busy)]
            label = "**adaptive**" if sender == "adaptive" else f"{sender} frames"
            cells.append((label, *(f"{100 * share:.0f}" for share in shares), f"{r['median_ms']:.0f}", *foretold))
        lines += [f"## {name}", ""]
        lines += table(
            "sender | in time % | of these right % | right and in time % | median ms | `plan --trace`: in time, right "
            "% | the same, ends as in the run",
            cells,
        )
        one = measured[name, "adaptive"]
        best = max((measured[name, s] for s in senders[1:]), key=lambda r: r["useful"])
        chosen = ", ".join(f"{frames} frames {n}" for frames, n in sorted(one["chosen"].items(), key=lambda p: -p[1]))
        told = f"""Adaptive chose {chosen} times; at the end it measured {one["rate_mbps"]:.2g} Mbit/s and
            {one["rtt_ms"]:.0f} ms. The best fixed sender of this link, known only afterwards, is right and in time for
            {100 * best["useful"]:.0f} %."""
        lines += [filled(told), ""]
    total = {sender: sum(measured[name, sender]["useful"] for name in LINKS) / len(LINKS) for sender in senders}
    fixed = max(senders[1:], key=lambda sender: total[sender])
    told = f"""Mean of the four links, right and in time: adaptive **{100 * total["adaptive"]:.0f} %**; the best sender
        that is fixed for all of them, {fixed} frames, {100 * total[fixed]:.0f} %. Of {about["samples"]} clips each, a
        share is known to about ±{50 / about["samples"] ** 0.5 * 1.96:.0f} points."""
    busy = f"""The machine has two cores, which other work kept busy throughout (load {about["load"]:.0f}): both ends
        took {about["ends_ms"]:.0f} ms more a clip in the runs than in the bench, mean. `plan` knows nothing of that;
        the last column is its forecast with this mean added to the device's time. The adaptive sender learns it, as it
        learns the rate, and takes what keeps it waiting for the processor for a slower link: at 8 and 20 Mbit/s it
        measured less."""
    return "\n".join([*lines, "## All four", "", filled(told), "", filled(busy), ""])


def filled(text: str) -> str:
    return fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def table(headers: str, rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {headers} |"
    yield "|" + " --- |" * len(headers.split(" | "))
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", nargs="?", type=Path)
    parser.add_argument("--deadline-ms", type=float, default=1000.0)
    parser.add_argument("--samples", type=int, default=30)
    given = parser.parse_args()
    store = HERE / "serving.jsonl"
    if given.results:
        known = matching(open_points(str(given.results)), "results", compose_spec(SPEC))
        rows: list[dict[str, Any]] = [
            {
                "point": p.knobs["frames"],
                "accuracy": p.accuracy,
                "bytes": p.bytes,
                "device_ms": sum(p.device_ms.values()),
                "server_ms": sum(p.server_ms.values()),
            }
            for p in known
        ]
        computing = {str(r["point"]): r["device_ms"] + r["server_ms"] for r in rows}
        runs = []
        for row in measure(given.results, given.deadline_ms, given.samples):
            print(json.dumps(row), flush=True)
            runs.append(row)
        slower = [r["ends_ms"] - computing[r["sender"]] for r in runs if r["sender"] != "adaptive"]
        more = max(0.0, sum(slower) / len(slower))
        version = read(given.results)[0].get("versions", {}).get("semcodec")
        about = {"about": SPEC, "deadline_ms": given.deadline_ms, "samples": given.samples, "ends_ms": more}
        rows += [*runs, {**about, "load": os.getloadavg()[2], "version": version}]
        rows += [*forecast(given.results, given.deadline_ms, given.samples, None)]
        rows += forecast(given.results, given.deadline_ms, given.samples, more)
        store.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    (HERE / "serving.md").write_text(page(rows))


if __name__ == "__main__":
    main()
