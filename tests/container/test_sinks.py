"""Sink and Source: what an Encoder writes comes back, every byte is counted, and misuse is named."""

from __future__ import annotations

import numpy as np
import pytest
from two_layers import HEADER, RawStage, TwoLayers, packet, stream, values

from semcodec.container.packets import Packet, read_stream, write_header
from semcodec.container.sinks import ChunkRow, PacketSink, PacketSource
from semcodec.errors import CorruptStream, PluginError, TruncatedStream
from semcodec.interfaces import Latent
from semcodec.priors import Counted


class TabledStage(RawStage):
    """Puts a table of eight bytes before the symbols."""

    def encode(self, symbols, prior):
        return bytes(8) + super().encode(symbols, prior)

    def decode(self, data, prior, count):
        return super().decode(data[8:], prior, count)

    def side_bytes(self, data, prior):
        return 8


def received(sink: PacketSink, cut: int = 0) -> Packet:
    data = write_header(HEADER) + sink.pack(HEADER).data
    (found,) = read_stream(data[: len(data) - cut])[1]
    return found


def written() -> PacketSink:
    sink = PacketSink(TabledStage())
    sink.symbols("index", np.arange(3), Counted(), side=True)
    sink.symbols("y", np.arange(10), Counted())
    sink.layer()
    sink.blob("info", b"abc", side=True)
    sink.blob("picture", b"p" * 100)
    return sink


def test_the_sum_is_the_packet():
    packed = written().pack(HEADER, 70_000, {"layers": 1})
    assert packed.bytes_total == len(packed.data)
    assert packed.bytes_side == (8 + 12) + 8 + 3
    assert packed.bytes_payload == 40 + 100
    # marker, head length, header id, sequence number, chunk count, table, one parameter, CRC; a CRC a chunk
    assert packed.bytes_header == 1 + 1 + 4 + 3 + 1 + (1 + 2 + 1 + 2) + 3 + 4 + 4 * 4
    assert packed.bytes_total == packed.bytes_payload + packed.bytes_side + packed.bytes_header
    assert packed.rows == (
        ChunkRow("index", "symbols", 3, 20, 20, 0),
        ChunkRow("y", "symbols", 10, 48, 8, 0),
        ChunkRow("info", "blob", 0, 3, 3, 1),
        ChunkRow("picture", "blob", 0, 100, 0, 1),
    )


def test_what_is_written_is_read_and_counted_alike():
    sink = written()
    source = PacketSource(received(sink), TabledStage())
    assert source.symbols("index", 3, Counted()).tolist() == [0, 1, 2]
    found = source.symbols("y", 10, Counted())
    assert found.dtype == np.int32
    assert found.tolist() == list(range(10))
    assert source.layer()
    assert source.blob("info", 3) == b"abc"
    assert source.blob("picture", 100) == b"p" * 100
    source.finish()
    assert source.rows == sink.rows
    assert source.params == HEADER.params
    assert PacketSource(received(sink), None, {"layers": 7}).params == {"layers": 7}


def test_seconds_are_those_of_the_entropy_stage():
    sink = written()
    assert 0 < sink.seconds < 1
    source = PacketSource(received(sink), TabledStage())
    assert source.seconds == 0
    source.symbols("index", 3, Counted())
    assert 0 < source.seconds < 1


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.array([], np.int64),
        np.array([[1, -2], [3, 4]], np.int16),
        np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2],
        np.arange(12).reshape(3, 4).T,
        np.array([True, False]),
        np.array([2**31 - 1, -(2**31)], np.int64),
        np.array([2**31 - 1], np.uint64),
        np.array([1, 2], ">i4"),
        np.array(5),
    ],
)
def test_integers_of_any_dtype_and_shape_are_flattened(values):
    sink = PacketSink(RawStage())
    sink.symbols("y", values, Counted())
    found = PacketSource(received(sink), RawStage()).symbols("y", values.size, Counted())
    assert found.tolist() == values.reshape(-1).tolist()


def test_the_stage_is_given_contiguous_int32():
    class Strict(RawStage):
        def encode(self, symbols, prior):
            assert (symbols.dtype, symbols.ndim, symbols.flags.c_contiguous) == (np.int32, 1, True)
            return super().encode(symbols, prior)

    for given in (np.arange(10, dtype=np.int32)[::2], np.ones((2, 3), bool), np.asfortranarray(np.ones((2, 3), int))):
        PacketSink(Strict()).symbols("y", given, Counted())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 2], "numpy integer array, gets list"),
        (np.array([1.0]), "expects integers, gets float64"),
        (np.array([1j]), "expects integers"),
        (np.array(["a"]), "expects integers"),
        (np.array([1], object), "expects integers"),
        (np.array([2**31]), "outside int32"),
        (np.array([-(2**31) - 1]), "outside int32"),
        (np.array([2**32 - 1], np.uint32), "outside int32"),
        (np.array([2**64 - 1], np.uint64), "outside int32"),
    ],
)
def test_anything_else_is_refused(values, reason):
    sink = PacketSink(RawStage())
    with pytest.raises(PluginError, match=f"'y'.*{reason}"):
        sink.symbols("y", values, Counted())
    assert sink.pack(HEADER).rows == ()


# -- misuse ----------------------------------------------------------------------------------------------------------


def test_without_an_entropy_stage_there_are_only_blobs():
    sink = PacketSink(None)
    with pytest.raises(PluginError, match=r"'y'.*only blobs"):
        sink.symbols("y", np.arange(3), Counted())
    sink.blob("picture", b"abc")
    source = PacketSource(received(sink), None)
    with pytest.raises(PluginError, match=r"'picture'.*only blobs"):
        source.symbols("picture", 3, Counted())
    assert source.blob("picture", 3) == b"abc"
    source.finish()


@pytest.mark.parametrize("name", ["", "a\0b", b"a", None])
def test_a_chunk_needs_a_name(name):
    with pytest.raises(PluginError, match="name"):
        PacketSink(None).blob(name, b"")


def test_a_blob_is_bytes():
    with pytest.raises(PluginError, match="expects bytes, gets bytearray"):
        PacketSink(None).blob("a", bytearray(3))


def test_a_layer_needs_a_chunk():
    sink = PacketSink(None)
    with pytest.raises(PluginError, match="layer 1 ends before it has a chunk"):
        sink.layer()
    sink.blob("a", b"")
    sink.layer()
    with pytest.raises(PluginError, match="layer 2"):
        sink.layer()


@pytest.mark.parametrize("claimed", [-1, 41])
def test_a_stage_that_miscounts_its_tables_is_named(claimed):
    class Wrong(RawStage):
        def side_bytes(self, data, prior):
            return claimed

    with pytest.raises(PluginError, match=f"counts {claimed} of 40 bytes"):
        PacketSink(Wrong()).symbols("y", np.arange(10), Counted())


@pytest.mark.parametrize("wrong", [np.zeros(3, np.int64), np.zeros((3, 1), np.int32), np.zeros(2, np.int32)])
def test_a_stage_that_decodes_another_shape_is_named(wrong):
    class Wrong(RawStage):
        def decode(self, data, prior, count):
            return wrong

    sink = PacketSink(RawStage())
    sink.symbols("y", np.arange(3), Counted())
    with pytest.raises(PluginError, match=r"'y'.*not 3 int32"):
        PacketSource(received(sink), Wrong()).symbols("y", 3, Counted())


# -- a reader that differs from the writer ---------------------------------------------------------------------------


def test_names_and_order_are_checked():
    for read in (lambda s: s.symbols("y", 10, Counted()), lambda s: s.blob("INDEX", 100), lambda s: s.blob("", 100)):
        stage = TabledStage()
        with pytest.raises(CorruptStream, match="fails its checksum"):
            read(PacketSource(received(written()), stage))
        assert stage.seen == []


def test_a_blob_above_its_bound_is_refused():
    sink = PacketSink(None)
    sink.blob("a", b"abc")
    with pytest.raises(CorruptStream, match="'a' has 3 bytes, at most 2"):
        PacketSource(received(sink), None).blob("a", 2)


def test_a_negative_count_is_refused():
    with pytest.raises(CorruptStream, match="-1 symbols"):
        PacketSource(received(written()), RawStage()).symbols("index", -1, Counted())


def test_layer_ends_are_checked():
    source = PacketSource(received(written()), TabledStage())
    with pytest.raises(CorruptStream, match="no layer ends after the head"):
        source.layer()
    source.symbols("index", 3, Counted())
    with pytest.raises(CorruptStream, match="no layer ends after chunk 'index'"):
        source.layer()
    source.symbols("y", 10, Counted())
    with pytest.raises(CorruptStream, match="a layer ends after chunk 'y', before chunk 'info'"):
        source.blob("info", 3)


def test_chunks_left_unread_are_an_error():
    source = PacketSource(received(written()), TabledStage())
    with pytest.raises(CorruptStream, match="4 chunks unread after the head"):
        source.finish()
    source.symbols("index", 3, Counted())
    source.symbols("y", 10, Counted())
    source.layer()
    with pytest.raises(CorruptStream, match="2 chunks unread after chunk 'y'"):
        source.finish()
    source.blob("info", 3)
    source.blob("picture", 100)
    source.finish()
    with pytest.raises(CorruptStream, match="no chunk 'more' after chunk 'picture'"):
        source.blob("more", 10)


def test_a_layers_end_left_unread_is_an_error():
    sink = PacketSink(None)
    sink.blob("a", b"")
    sink.layer()
    source = PacketSource(received(sink), None)
    source.blob("a", 0)
    with pytest.raises(CorruptStream, match="a layer's end unread"):
        source.finish()
    assert source.layer()
    source.finish()


# -- layers ----------------------------------------------------------------------------------------------------------


def test_a_cut_packet_reads_to_its_layer():
    sink = written()
    second = 3 + 4 + 100 + 4
    source = PacketSource(received(sink, second), TabledStage())
    source.symbols("index", 3, Counted())
    source.symbols("y", 10, Counted())
    assert source.layer() is False
    source.finish()
    with pytest.raises(TruncatedStream, match="ends after layer 1 of 2, before chunk 'info'"):
        source.blob("info", 3)


def test_the_two_layer_codec():
    sent = values(3, 1000)
    sink = PacketSink(RawStage())
    TwoLayers().write(Latent({"values": sent}), sink)
    assert [(row.name, row.layer) for row in sink.rows] == [("count", 0), ("high", 0), ("low", 1)]
    for cut, present, expected in ((0, 2, sent), (4004, 1, sent & 0xF0)):
        found = received(sink, cut)
        source = PacketSource(found, RawStage())
        assert np.array_equal(TwoLayers().read(source).symbols["values"], expected)
        source.finish()
        assert (found.layers_present, found.layers_total) == (present, 2)


def test_fewer_layers_by_parameter_are_a_whole_packet():
    assert len(packet(1, layers=1)) < len(packet(1))
    (found,) = read_stream(write_header(HEADER) + packet(1, layers=1))[1]
    assert (found.layers_present, found.layers_total, found.overrides) == (1, 1, {"layers": 1})


# -- damage ----------------------------------------------------------------------------------------------------------


def test_the_stage_never_sees_bytes_that_fail_their_checksum():
    """Every byte of a stream damaged: whatever reaches the entropy stage is a chunk as it was written."""
    data, clean = stream(), RawStage()

    def read(data: bytes, stage: RawStage) -> None:
        for record in read_stream(data)[1]:
            if isinstance(record, Packet):
                TwoLayers().read(PacketSource(record, stage))

    read(data, clean)
    assert len(clean.seen) == 5
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x5A
        stage = RawStage()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which error is the fuzz test's matter
            read(bytes(damaged), stage)
        assert type(caught.value).__module__ == "semcodec.errors"
        assert stage.seen == clean.seen[: len(stage.seen)]
