"""Two rounds with the ends apart: the server asks by a message, and the packet is that of one process."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

import semcodec
from semcodec.container.packets import read_packets
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, UsageError
from semcodec.pipeline.server import Joined
from semcodec.pipeline.timing import Clock

pytestmark = pytest.mark.usefixtures("one_thread")
SPECS = ("sdt:keep=20,sure={}+rans+vit-nano-server", "a-mot:first=20,keep=40,sure={}+rans+vit-nano-server")
NUMBERS = (3, 8)


def ends(spec):
    return semcodec.Device.load(spec, replied=True), semcodec.Server.load(spec, replies=True)


@pytest.mark.parametrize("sure", [0, 0.05, 60])
@pytest.mark.parametrize("form", SPECS)
def test_the_packet_of_both_ends_apart_is_that_of_one_process(form, sure):
    spec = form.format(sure)
    device, server = ends(spec)
    whole = semcodec.compose(spec, offline=True)
    assert device.header == server.header == whole.header
    assert all(tensor.is_meta for tensor in device.encoder.server.parameters())
    pixels, _ = open_dataset("digits-scenes", "test", whole.request).batch(range(2))
    for i, number in enumerate(NUMBERS):
        [begun] = device.begin(pixels[i : i + 1], [number])
        [first] = read_packets(BytesIO(begun.first.data), server.header)
        [message] = server.reply([first])
        due = whole.encode_batch(pixels[i : i + 1], [number])[0]
        finished = device.finish(begun, message)
        assert finished.data == due.data
        assert dict(finished.kept)["keep"] == due.kept["keep"]
        if sure in (0, 60):
            assert (message == b"\0") == (sure == 60)
            assert (finished.data == begun.first.data) == (sure == 60)
        assert server.decode(finished.data).index == whole.decode(due).index
        assert server.decode(begun.first.data).logits is not None


@pytest.mark.parametrize("form", SPECS)
def test_two_packets_are_joined_to_the_latent_of_one(form):
    device, server = ends(form.format(0))
    pixels, _ = open_dataset("digits-scenes", "test", device.request).batch([1])
    [begun] = device.begin(pixels, [7])
    [first] = read_packets(BytesIO(begun.first.data), server.header)
    [message] = server.reply([first])
    second, whole = device.second(begun, message), device.finish(begun, message)
    assert second.kept == whole.kept
    assert len(begun.first.data) + len(second.data) < len(whole.data) + 16
    [record] = read_packets(BytesIO(second.data), server.header)
    assert record.sequence == 7
    joined = Joined(first, message, record)
    [due] = read_packets(BytesIO(whole.data), server.header)
    both = [server._receive(one, Clock())[2] for one in (joined, due)]
    assert {name: values.tolist() for name, values in both[0].symbols.items()} == {
        name: values.tolist() for name, values in both[1].symbols.items()
    }
    assert repr(both[0].side) == repr(both[1].side)
    found = server.decode_each([joined, due, joined])
    assert np.array_equal(found[0].logits, found[1].logits)
    assert found[0].layers == found[1].layers
    for damaged in (Joined(first, b"\1" + b"\x80" + bytes(4), record), Joined(first, message, first)):
        [error] = server.decode_each([damaged])
        assert isinstance(error, CorruptStream), error
    with pytest.raises(CorruptStream, match="asks for a second round and for nothing in it"):
        device.second(begun, b"\0")


@pytest.mark.parametrize("form", SPECS)
def test_a_message_that_is_none_is_one_line(form):
    device, _ = ends(form.format(0))
    [begun] = device.begin(np.zeros((1, 96, 96, 3), np.uint8), [0])
    for message in (b"", b"\2", b"\0\0", b"\1" + b"\xff" * 999, b"\1" + bytes(18), b"\1\1\1"):
        with pytest.raises(CorruptStream, match=r"^[^\n]+$"):
            device.finish(begun, message)


def test_an_end_of_another_kind_says_what_to_do():
    with pytest.raises(UsageError, match="jpeg sends all in one round"):
        semcodec.Device.load("jpeg+vit-nano-server", replied=True)
    device = semcodec.Device.load(SPECS[0].format(0), replied=True)
    with pytest.raises(UsageError, match="begin, and finish with its reply"):
        device.encode("digits-scenes:0")
    server = semcodec.Server.load("jpeg+vit-nano-server")
    with pytest.raises(UsageError, match="to which there is no reply"):
        server.reply([])
