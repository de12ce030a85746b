"""A server answers over the network what both ends in one process answer, for every task and kind of method."""

from __future__ import annotations

import asyncio
from io import BytesIO

import pytest
from serving_process import TOKEN, ServerProcess

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import write_header
from semcodec.container.truncation import cut_stream
from semcodec.data.inputs import Input
from semcodec.errors import LinkError, UsageError
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.serving import messages
from semcodec.serving.answers import to_prediction
from semcodec.specs import RECONSTRUCTION
from semcodec.tasks.statistics import unpacked
from semcodec.tasks.table import get_task

SPECS = {
    "jpeg:40+vit-nano-server": "digits-scenes",
    "cls-attn:keep=12+rans+vit-nano-server": "digits-scenes",
    "mot:18+mae+rans+vit-nano-server": "digits-scenes",
    "aecnn+rans+resnet-nano": "digits-scenes",
    "pca+huffman+resnet-nano@stem": "digits-scenes",
    "layered+rans+det-nano@d3": "digits-scenes",
    "jpeg+seg-nano": "digits-scenes",
    "jpeg+embed-nano": "digits-scenes",
    "jpeg+draw-nano": "digits-scenes",
    "stae:frames=4,pixels=0.4+rans+vit-nano": "digits-motion",
    "bottlenetpp+rans+resnet-nano": "digits-scenes",
}
GATED = "cls-attn:keep=12+min-entropy:0.5+rans+vit-nano-server"
SAMPLES = {"digits-scenes": 8, "digits-motion": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN + "\n")
    with ServerProcess(folder, *SPECS, "--token-file", str(folder / "token")) as process:
        yield process
        assert process.stop() == 0


def inputs(pipeline: Pipeline, data: str) -> list[Input]:
    dataset = semcodec.open_dataset(data, "test", pipeline.request)
    out = []
    for i in range(SAMPLES[data]):
        pixels, labels = dataset.batch([i])
        size = dataset.sizes([i])[0] if pipeline.request.placed else None
        out.append(Input(pixels, labels[0], dataset.classes, dataset.ids([i])[0], size))
    return out


@pytest.mark.parametrize(("spec", "data"), [*SPECS.items(), (GATED, "digits-scenes")])
def test_the_same_predictions_as_eval(server, spec, data):
    pipeline = Pipeline.load(compose_spec(spec))
    dataset = semcodec.open_dataset(data, "test", pipeline.request)
    record = evaluate(pipeline, dataset, limit=SAMPLES[data])
    task = get_task(pipeline.composition.task)
    score = task.score(dataset, pipeline.classes, pipeline.request, pipeline.raw_uint8_bytes)
    samples = inputs(pipeline, data)
    with semcodec.connect(server.url, spec, token=TOKEN, logits=True, offline=True) as link:
        answers = sorted(link.stream(samples), key=lambda answer: answer.sequence)
        assert list(link.classes) == list(pipeline.classes)
    assert [answer.sample.name for answer in answers] == [sample.name for sample in samples]
    for answer in answers:
        score.add([answer.prediction], [answer.sample.label], answer.sample.size and [answer.sample.size])
    if task.name == RECONSTRUCTION:  # a batch of another size rounds some pixels the other way
        mine, theirs = (unpacked(each["decibels"], list[float]) for each in (score.by_sample(), record))
        assert mine == pytest.approx(theirs, abs=0.01)
        assert score.accuracy()[task.metric.key] == pytest.approx(record[task.metric.key], abs=0.01)
    else:
        assert score.by_sample() == {name: record[name] for name in score.by_sample()}
        assert score.accuracy()[task.metric.key] == record[task.metric.key]
    bytes_total = sum(answer.encoded.bytes_total for answer in answers) / len(samples)
    assert bytes_total == pytest.approx(record["bytes_total"], rel=0.02)
    local = sum(answer.outcome == "local" for answer in answers)
    assert {answer.outcome for answer in answers} <= {"answered", "local"}
    assert local / len(samples) == 1 - record["sent_ratio"]
    if spec == GATED:
        assert 0 < local < len(samples), "the gate must keep some and send some"
        assert all(answer.prediction.where == "device" for answer in answers if answer.outcome == "local")


def test_packets_that_were_cut_on_their_way_are_answered_from_what_is_left(server):
    """Tails of layers may be dropped between the two ends, with a mark or without."""
    pipeline = Pipeline.load(compose_spec("layered+rans+det-nano@d3"))
    header = write_header(pipeline.header)
    with semcodec.connect(server.url, "layered+rans+det-nano@d3", token=TOKEN, offline=True) as link:
        for number, sample in enumerate(inputs(pipeline, "digits-scenes")[:3]):
            whole = header + pipeline.device.encode_batch(sample.pixels, [900 + number], None, [sample.size])[0].data
            cut = BytesIO()
            cut_stream(BytesIO(whole), cut, layers=2)
            record = cut.getvalue()[len(header) :]
            expected = pipeline.decode(record)
            outcome = link._carrier.submit(900 + number, record).result().outcome
            assert isinstance(outcome, messages.Answer)
            found = to_prediction(outcome, link.classes)
            assert found.layers == expected.layers == (2, 4)
            assert found.names == expected.names
            assert found.boxes.xyxy.allclose(expected.boxes.xyxy, atol=1e-3)


def test_knobs_change_in_mid_stream(server):
    with semcodec.connect(server.url, "jpeg:40+vit-nano-server", token=TOKEN, offline=True) as link:
        sizes = [link.send("digits-scenes:3", quality=quality).encoded.bytes_total for quality in (10, 40, 90)]
        plain = link.send("digits-scenes:3")
        assert sizes == sorted(set(sizes))
        assert plain.encoded.bytes_total == sizes[1]
        assert plain.prediction.name == "1"
        with pytest.raises(UsageError, match="no call parameter 'qality'"):
            link.send("digits-scenes:3", qality=10)


def test_one_server_answers_selectors_and_gates_that_it_was_not_started_with(server):
    spec = "cls-attn:keep=8+random+huffman+vit-nano-server"
    with pytest.raises(LinkError, match="and this server answers jpeg"):
        semcodec.connect(server.url, spec, token=TOKEN, offline=True).__enter__()
    with semcodec.connect(server.url, spec.replace("huffman", "rans"), token=TOKEN, offline=True) as link:
        assert link.send("digits-scenes:3").prediction is not None


def test_from_asyncio(server):
    async def main() -> None:
        connecting = semcodec.connect(server.url, "jpeg:40+vit-nano-server", token=TOKEN, offline=True)
        async with connecting as link:
            names = [f"digits-scenes:{i}" for i in range(6)]
            sent = await asyncio.gather(*(link.send(name, deadline_ms=60_000) for name in names))
            streamed = [answer async for answer in link.stream(names)]
            assert [answer.sample for answer in sent] == names
            by_name = {answer.sample: answer.prediction.index for answer in streamed}
            assert by_name == {answer.sample: answer.prediction.index for answer in sent}

    asyncio.run(main())


def test_what_the_parts_of_the_time_say(server):
    with semcodec.connect(server.url, "jpeg:40+vit-nano-server", token=TOKEN, offline=True) as link:
        link.send("digits-scenes:0")
        answer = link.send("digits-scenes:0")
        ms = answer.ms
        assert all(ms[part] >= 0 for part in ms)
        assert ms["server"] == pytest.approx(ms["decode"] + ms["recover"] + ms["tail"])
        assert ms["decode"] > 0
        assert ms["tail"] > 0
        assert answer.total_ms == pytest.approx(ms["device"] + ms["link"] + ms["queue"] + ms["server"])


def test_a_deadline_that_is_over_is_late_and_costs_nothing(server):
    before = server.metric('semcodec_stage_seconds_count{stage="tail"}')
    with semcodec.connect(server.url, "jpeg:40+vit-nano-server", token=TOKEN, offline=True) as link:
        answer = link.send("digits-scenes:0", deadline_ms=0)
        assert (answer.outcome, answer.prediction) == ("late", None)
    assert server.metric('semcodec_stage_seconds_count{stage="tail"}') == before
    assert server.metric('semcodec_records_total{outcome="late"}') >= 1


def test_a_record_that_cannot_be_decoded_costs_its_own_answer_alone(server):
    with semcodec.connect(server.url, "jpeg:40+vit-nano-server", token=TOKEN, offline=True) as link:
        good = [link.device.encode(f"digits-scenes:{i}", sequence=i) for i in range(6)]
        bad = bytearray(good[2].data)
        bad[-10] ^= 1
        records = [*(one.data for one in good[:2]), bytes(bad), *(one.data for one in good[3:5]), good[0].data]
        sent = [link._carrier.submit(i, record) for i, record in enumerate(records)]
        outcomes = [one.result().outcome for one in sent]
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == ["Answer", "Answer", "Failed", "Answer", "Answer", "Failed"]
    assert "checksum" in outcomes[2].message
    assert "one record of that number" in outcomes[5].message


def test_what_is_said_over_http(server):
    assert server.get("/healthz", None) == (200, "ok\n")
    assert server.get("/readyz", None) == (200, "ok\n")
    status, text = server.get("/v1/compositions")
    assert status == 200
    assert all(compose_spec(spec).spec in text for spec in SPECS)
    for path in ("/metrics", "/v1/compositions"):
        assert server.get(path, None)[0] == 401
        assert server.get(path, "another-token-of-tests")[0] == 401
    assert server.metric('semcodec_records_total{outcome="answered"}') > 0
    assert server.metric("semcodec_bytes_received_total") > 0
