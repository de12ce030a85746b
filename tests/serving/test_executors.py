"""Where batches are computed can be chosen: what an executor may do to the engine, and what that costs in answers."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from semcodec.container.packets import write_header
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError
from semcodec.pipeline.device import Device
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.serving.app import describe, make_app
from semcodec.serving.batching import Batcher, Job
from semcodec.serving.computing import Item, compute
from semcodec.serving.engine import TRIES, Engine, Here, Hosted, Models, WorkerLost
from semcodec.serving.loading import Loading, lighten
from semcodec.serving.messages import Answer, Failed, Reply
from semcodec.serving.metrics import Metrics
from semcodec.serving.service import Service
from semcodec.serving.sessions import ServerSession

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = "jpeg:40+vit-nano-server"
SAMPLES = 6


@dataclass(frozen=True)
class Stream:
    """A device's records with the server that answers them."""

    server: Server
    hosted: Hosted
    records: list[bytes]

    @classmethod
    def of(cls, spec: str, rounds: bool = False) -> Stream:
        """rounds: whether the records are first ones of two."""
        device, server = Device.load(spec, offline=True, replied=rounds), Server.load(spec, replies=None)
        pixels, _ = open_dataset("digits-scenes", "test", device.request).batch(range(SAMPLES))
        if rounds:
            encoded = [begun.first for begun in device.begin(pixels, range(SAMPLES))]
        else:
            encoded = [device.encode(one, sequence=number) for number, one in enumerate(pixels)]
        hosted = Models([server]).host(write_header(device.header))
        return cls(server, hosted, [one.data for one in encoded])

    def items(self, **more) -> list[Item]:
        return [Item(number, record, logits=True, **more) for number, record in enumerate(self.records)]


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream.of(SPEC)


@dataclass
class Owner:
    session: ServerSession = field(default_factory=lambda: ServerSession("", [], 0, 32, 32, 0, True))


def outcomes(stream: Stream, executor, records: list[bytes] | None = None, most: int = 16) -> dict:
    """What an engine says to records, by number; it must end."""
    batcher: Batcher = Batcher(most, 0.0)
    said: list = []
    engine: Engine = Engine(batcher, Metrics(), said.extend, executor)
    now = batcher.now()
    for number, record in enumerate(stream.records if records is None else records):
        batcher.put(Job(stream.hosted, Owner(), number, record, now))
    engine.start()
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    stopping.join(60)
    assert not stopping.is_alive(), "the engine hangs"
    found = {outcome.sequence: outcome for _, outcome in said}
    assert len(found) == len(said), "a record was answered twice"
    return found


def unexpected(error: BaseException) -> None:
    raise AssertionError from error


def answers(found: dict) -> dict:
    """Without the times, of which each run has its own."""
    return {n: (one.index, one.logits) for n, one in found.items() if isinstance(one, Answer)}


def agree(found: dict, wanted: dict) -> None:
    """The same answers, of batches of other sizes, whose sums some processors round otherwise."""
    found, wanted = answers(found), answers(wanted)
    assert {n: index for n, (index, _) in found.items()} == {n: index for n, (index, _) in wanted.items()}
    for n, (_, logits) in wanted.items():
        one, other = (np.frombuffer(values, "<f4") for values in (found[n][1], logits))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


class Apart(Here):
    """As in another process, of which nothing comes back but bytes."""

    def compute(self, hosted, items):
        header, task, items = pickle.loads(pickle.dumps((hosted.header, hosted.task, items)))
        there = Models([hosted.server]).host(header, task)
        return pickle.loads(pickle.dumps(compute(there.server, items, self.fault)))


class Dying(Here):
    """Whoever computes one of ``killers`` dies of it."""

    def __init__(self, killers: set[int]) -> None:
        super().__init__(unexpected)
        self.killers, self.deaths = killers, 0

    def compute(self, hosted, items):
        if self.killers & {item.sequence for item in items}:
            self.deaths += 1
            raise WorkerLost("it died")
        return super().compute(hosted, items)


def test_what_is_computed_apart_is_what_is_computed_here(stream):
    here = answers(outcomes(stream, Here(unexpected)))
    assert set(here) == set(range(SAMPLES))
    assert answers(outcomes(stream, Apart(unexpected))) == here


@pytest.mark.parametrize("spec", ["layered+det-nano@d3", "jpeg+seg-nano", "jpeg+embed-nano"])
def test_answers_of_every_task_cross(spec):
    stream = Stream.of(spec)
    here, apart = (one(unexpected).compute(stream.hosted, stream.items()).said for one in (Here, Apart))
    assert [type(one) for one in here] == [Answer] * SAMPLES
    assert [(one.index, one.boxes) for one in here] == [(one.index, one.boxes) for one in apart]
    assert Here(unexpected).draw(stream.hosted, stream.items()[0], apart[0])


def test_what_is_asked_after_first_rounds_crosses():
    stream = Stream.of("sdt:keep=20,sure=0.3+vit-nano-server", rounds=True)
    here, apart = (one(unexpected).compute(stream.hosted, stream.items(round=1)).said for one in (Here, Apart))
    asked = [one.request for one in here if isinstance(one, Reply)]
    assert asked
    assert asked == [one.request for one in apart if isinstance(one, Reply)]


def test_as_many_batches_are_in_flight_as_the_executor_takes(stream):
    class Three(Here):
        at_once = 3
        met = threading.Barrier(3)

        def compute(self, hosted, items):
            self.met.wait(20)  # nobody goes on before three are here
            return super().compute(hosted, items)

    found = outcomes(stream, Three(unexpected), most=2)
    assert len(answers(found)) > 2
    agree(found, outcomes(stream, Here(unexpected)))


def test_a_queue_is_taken_while_the_batch_of_another_is_computed():
    """Of two that take, one waits for the first queue's others and then computes; the other minds the second queue."""
    batcher: Batcher = Batcher(16, 0.3)
    first, second = Hosted(None, open=2), Hosted(None, open=2)  # type: ignore[arg-type]
    took: list[tuple[Hosted, float]] = []

    def take() -> None:
        batch, _ = batcher.take()  # type: ignore[misc]
        took.append((batch[0].stream, time.monotonic() - began))
        time.sleep(5 if batch[0].stream is first else 0)

    threads = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    for one in (first, second):
        batcher.put(Job(one, None, 0, b"", batcher.now()))
        time.sleep(0.1)
    time.sleep(1.5)
    assert [one for one, _ in took] == [first, second]
    assert all(0.25 < when < 1.4 for _, when in took)


def test_a_bad_packet_costs_its_own_answer(stream):
    damaged = bytearray(stream.records[2])
    damaged[-10] ^= 0xFF
    records = [*stream.records[:2], bytes(damaged), b"nonsense", *stream.records[4:]]
    whole = answers(outcomes(stream, Here(unexpected)))
    for executor in (Here(unexpected), Apart(unexpected)):
        found = outcomes(stream, executor, records)
        assert [n for n, one in found.items() if isinstance(one, Failed)] == [2, 3]
        got = answers(found)
        assert set(got) == {0, 1, 4, 5}
        assert all(np.allclose(_logits(got[n]), _logits(whole[n]), atol=1e-5) for n in got)


def _logits(answer: tuple[int, bytes]) -> np.ndarray:
    return np.frombuffer(answer[1], "<f4")


def test_an_error_of_ours_costs_its_own_answer_and_is_told(stream, monkeypatch):
    real, told = Server.decode_each, []

    def decode_each(self, records, clock=None):
        if any(record.sequence == 1 for record in records):
            raise ZeroDivisionError("ours")
        return real(self, records, clock)

    monkeypatch.setattr(Server, "decode_each", decode_each)
    found = outcomes(stream, Here(told.append))
    assert [n for n, one in found.items() if isinstance(one, Failed)] == [1]
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_a_worker_that_dies_once_costs_nothing(stream):
    class Once(Dying):
        def compute(self, hosted, items):
            try:
                return super().compute(hosted, items)
            except WorkerLost:
                self.killers = set()
                raise

    executor = Once({3})
    found = outcomes(stream, executor)
    assert executor.deaths == 1
    assert set(answers(found)) == set(range(SAMPLES))


def test_a_record_that_kills_costs_its_own_answer(stream):
    executor = Dying({3})
    found = outcomes(stream, executor)
    assert executor.deaths == TRIES
    assert set(answers(found)) == set(range(SAMPLES)) - {3}
    assert found[3] == Failed(3, f"what computes this record died {TRIES} times")


def test_where_all_die_or_nobody_answers_there_are_errors_and_no_hang(stream):
    executor = Dying(set(range(SAMPLES)))
    found = outcomes(stream, executor)
    assert {type(one) for one in found.values()} == {Failed}
    assert executor.deaths == 1 + (TRIES - 1) * SAMPLES

    class Nobody(Here):
        def compute(self, hosted, items):
            raise SemcodecError("no replica has answered in time")

    found = outcomes(stream, Nobody(unexpected))
    assert {one.message for one in found.values()} == {"no replica has answered in time"}


def test_a_front_without_networks_says_what_one_with_them_does(stream):
    specs = (SPEC, "layered+det-nano@d3", "sdt:keep=20,sure=0.3+vit-nano-server")
    loading = Loading(specs, WeightsRequest(offline=True), [None] * 3)
    whole, light = loading.load(), loading.load()
    for server in light:
        lighten(server)
        assert all(tensor.is_meta for tail in server.tails.values() for tensor in tail.parameters())
    assert [describe(server) for server in light] == [describe(server) for server in whole]
    hosted = Models(light).host(stream.hosted.header, backbone=whole[0].digests["backbone"])
    assert (hosted.largest, list(hosted.server.classes)) == (stream.hosted.largest, list(stream.server.classes))


def test_a_service_is_ready_when_its_executor_is(stream):
    from starlette.testclient import TestClient

    class Soon(Here):
        ready = False

    executor = Soon(unexpected)
    with TestClient(make_app(Service([stream.server], executor=executor))) as browser:
        assert browser.get("/readyz").status_code == 503
        assert browser.get("/healthz").status_code == 200
        executor.ready = True
        assert browser.get("/readyz").status_code == 200
