"""A server in a process of its own, 20 clips sent to it, and the same answers as in one process."""

import subprocess
import sys

import semcodec

SPEC = "stae+rans+vit-nano"
CLIPS = [f"digits-motion:{i}" for i in range(20)]

command = [sys.executable, "-m", "semcodec", "serve", SPEC, "--port", "0", "--offline"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()  # printed once it answers
        with semcodec.connect(url, SPEC, offline=True) as link:
            answers = sorted(link.stream(CLIPS), key=lambda answer: answer.sequence)
            print(f"sent {len(answers)} clips to {url}: {link.statistics}")
    finally:
        server.terminate()
print(f"the server ended with {server.returncode}")

pipeline = semcodec.compose(SPEC, offline=True)
same = 0
for clip, answer in zip(CLIPS, answers, strict=True):
    alone = pipeline.decode(pipeline.encode(clip))
    same += answer.prediction is not None and answer.prediction.index == alone.index
print(f"{same} of {len(CLIPS)} answers are those of one process")
sys.exit(same < len(CLIPS) or server.returncode != 0)
