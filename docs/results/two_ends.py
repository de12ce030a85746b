"""What each end takes when it stands alone: python docs/results/two_ends.py > docs/results/two_ends.md

For one composition of each kind: the two files that ``semcodec split`` writes, one sample encoded in a process that has
the device's file alone and decoded in one that has the server's alone, and the same in one process with all weights.
Peak memory is the process's greatest resident set, the smallest of three runs. About five minutes of one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = {
    "video": ("stae+vit-nano", "digits-motion:0"),
    "image with an edge model": ("cls-attn+vit-nano-server", "digits-scenes:1"),
    "CNN cut": ("aecnn+resnet-nano", "digits-scenes:1"),
    "detector": ("layered+det-nano@d3", "digits-scenes:0"),
    "pictures": ("jpeg+vit-nano-server", "digits-scenes:1"),
}
RUNS = 3
TITLE = f"""# Two ends: what each takes alone

Made by `python docs/results/two_ends.py`, which says how. {RUNS} runs each, the smallest; one thread.
Importing torch and timm alone takes most of the memory of either end: without them a device is another matter.

| composition | of | weights, kB | peak memory, MB | answer |
| --- | --- | ---: | ---: | --- |"""


def run(*words: object) -> tuple[dict[str, object], int]:
    """What a command prints, and the peak memory of its process in bytes."""
    code = "import sys, resource; from semcodec.cli import main; main(sys.argv[1:], standalone_mode=False); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    command = [sys.executable, "-c", code, *map(str, words), "--format", "json"]
    found, peaks = {}, []
    for _ in range(RUNS):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found, unit = json.loads(done.stdout), 1024 if sys.platform != "darwin" else 1
        peaks.append(int(done.stderr.splitlines()[-1]) * unit)
    return found, min(peaks)


def answer(found: dict[str, object]) -> str:
    prediction = found["prediction"]
    if prediction is None:
        return "-"
    if "boxes" in prediction:
        return ", ".join(f"{box['name']} {box['score']:.2f}" for box in prediction["boxes"])
    return f"{prediction['name']} {100 * prediction['probability']:.1f} %"


def main() -> None:
    print(TITLE)
    with tempfile.TemporaryDirectory() as folder:
        for kind, (spec, sample) in KINDS.items():
            halves, stream = Path(folder) / kind, Path(folder) / f"{kind}.sem"
            run("split", spec, "-o", halves)
            device, server = (halves / f"{end}.safetensors" for end in ("device", "server"))
            sent, encoding = run("encode", spec, sample, "-o", stream, "--weights", device)
            received, decoding = run("decode", stream, "--weights", server)
            whole, both = run("encode", spec, sample, "-o", stream, "--check")
            assert sent["bytes_total"] == whole["bytes_total"] and answer(received) == answer(whole)
            sizes = [path.stat().st_size / 1000 for path in (device, server)]
            for of, size, peak, told in (
                (f"{kind}: device", sizes[0], encoding, f"its own: {answer(sent)}"),
                ("server", sizes[1], decoding, answer(received)),
                ("one process", sum(sizes), both, answer(whole)),
            ):
                name = f"`{spec}`" if of.endswith("device") else ""
                print(f"| {name} | {of} | {size:,.0f} | {peak / 1e6:,.0f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
