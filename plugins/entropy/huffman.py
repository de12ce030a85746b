"""Huffman coding: whole bits for each symbol, within one bit of the entropy.

Layout: ``u8 255 | deflate`` (the layout of ``general_purpose``) where the symbols span up to 256 values, zlib's Huffman
coder without matches; else ``u8 shift | code | low bits | u8 width | lane lengths | bits``:

code       the canonical code as a packed table: a code of n bits has the frequency ``2 ** (longest - n)``
low bits   of values too wide for a table, as in ``counted``
lanes      each 512 symbols are a lane, whose length in bits is given (``width`` bits each), so that all lanes can be
           decoded in step, as arrays
bits       the codes, most significant bit first, lane after lane without a gap
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.coding.tables import pack_table, unpack_table
from semcodec.errors import CorruptStream
from semcodec.priors import Int32, Prior, Table
from semcodec_plugins.entropy.counted import MAX_BITS
from semcodec_plugins.entropy.general_purpose import Deflate
from semcodec_plugins.entropy.stage import Stage

NARROW = 255
LONGEST = 24  # bits of a code; a 32-bit window at any octet holds one
LANE = 512
_BLOCK = LANE << 9  # symbols whose codes are joined at a time: bounds memory

Int64 = npt.NDArray[np.int64]


class _HuffmanOnly(Deflate):
    strategy = zlib.Z_HUFFMAN_ONLY


class Huffman(Stage):
    """Makes its own code from the symbols, so tables are ignored."""

    def __init__(self) -> None:
        self._narrow = _HuffmanOnly()

    def _encode(self, symbols: Int32, prior: Prior) -> bytes:
        low, high = int(symbols.min()), int(symbols.max())
        if high - low < 256:
            return bytes([NARROW]) + self._narrow.encode(symbols, prior)
        shift = max(0, (high - low).bit_length() - MAX_BITS)
        places = (symbols >> shift) - np.int32(low >> shift)
        lengths = code_lengths(np.bincount(places))
        code = Table(low >> shift, np.where(lengths, 1 << lengths.max() - lengths, 0).astype(np.uint32))
        lows = pack_bits((symbols & (1 << shift) - 1).view(np.uint32), shift)
        return bytes([shift]) + pack_table(code) + lows + _encode_lanes(places, Canonical.of(code))

    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        if data[:1] == bytes([NARROW]):
            return self._narrow.decode(data[1:], prior, count)
        if not data or data[0] > 31:
            raise CorruptStream("Huffman codes have a damaged header")
        shift = data[0]
        table, at = unpack_table(data[1:])
        middle = 1 + at + packed_size(shift, count)
        lows = unpack_bits(data[1 + at : middle], shift, count).view(np.int32)
        symbols = _decode_lanes(data[middle:], Canonical.of(table), count)
        symbols += np.int32(table.offset)
        symbols <<= shift
        symbols |= lows
        return symbols

    def _side_bytes(self, data: bytes, prior: Prior) -> int:
        return 0 if data[0] == NARROW else unpack_table(data[1:])[1]


def code_lengths(counts: Int64) -> Int64:
    """Optimal lengths up to LONGEST bits, 0 where the count is: the package-merge algorithm.

    Each round is one sort of all symbols and packages, so alphabets of 65,536 take a fraction of a second.
    """
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    weights, merged, rounds = counts[order], np.zeros(0, np.int64), []
    for _ in range(LONGEST):
        packages = merged[: len(merged) // 2 * 2].reshape(-1, 2).sum(axis=1)
        both = np.concatenate([weights, packages])
        by_weight = np.argsort(both, kind="stable")
        merged = both[by_weight]
        rounds.append(by_weight < len(weights))
    lengths, taken = np.zeros_like(counts), 2 * len(order) - 2
    for single in reversed(rounds):
        items = int(np.count_nonzero(single[:taken]))
        lengths[order[:items]] += 1
        taken = 2 * (taken - items)
    return lengths


@dataclass(frozen=True)
class Canonical:
    """A canonical code: shorter codes first, equal lengths in the order of symbols.

    length, code: by place in the table, 0 where absent. For each length in use, in order: ``first``, its lowest
    code written in ``longest`` bits, and ``base``, where its symbols begin in ``places``.
    """

    longest: int
    length: npt.NDArray[np.uint8]
    code: npt.NDArray[np.uint64]
    lengths: Int64
    first: npt.NDArray[np.uint32]
    base: Int64
    places: Int32

    @classmethod
    def of(cls, table: Table) -> Canonical:
        """Raises CorruptStream if the table is no complete code."""
        freqs, longest = table.freqs.astype(np.int64), table.precision
        places = np.flatnonzero(freqs)
        if (freqs & freqs - 1).any() or longest > LONGEST or len(places) < 2 or table.escape:
            raise CorruptStream("a Huffman code is not complete")
        length = np.zeros(len(freqs), np.uint8)
        length[places] = longest + 1 - np.frexp(freqs[places])[1]
        places = places[np.argsort(length[places], kind="stable")]
        starts = np.cumsum(freqs[places]) - freqs[places]
        code = np.zeros(len(freqs), np.uint64)
        code[places] = starts >> longest - length[places].astype(np.int64)
        lengths, base = np.unique(length[places], return_index=True)
        first = starts[base].astype(np.uint32)
        return cls(longest, length, code, lengths.astype(np.int64), first, base, places.astype(np.int32))


def _encode_lanes(places: Int32, code: Canonical) -> bytes:
    lengths = code.length[places]
    lanes = np.add.reduceat(lengths, np.arange(0, len(places), LANE), dtype=np.uint32)
    width = int(lanes.max()).bit_length()
    words = np.zeros(int(lanes.sum(dtype=np.int64)) // 32 + 2, np.uint64)
    at = 0
    for i in range(0, len(places), _BLOCK):
        part = lengths[i : i + _BLOCK].astype(np.int64)
        ends = at + np.cumsum(part)
        starts, at = ends - part, int(ends[-1])
        # Each code lies across two words at most. Codes share no bits, so adding up a word's parts joins them.
        wide = code.code[places[i : i + _BLOCK]] << (64 - (starts & 31) - part).astype(np.uint64)
        word = starts >> 5
        runs = np.flatnonzero(np.diff(word, prepend=-1))
        words[word[runs]] += np.add.reduceat(wide >> np.uint64(32), runs)
        words[word[runs] + 1] += np.add.reduceat(wide & np.uint64(0xFFFFFFFF), runs)
    return bytes([width]) + pack_bits(lanes, width) + words.astype(">u4").tobytes()[: (at + 7) // 8]


def _decode_lanes(data: bytes, code: Canonical, count: int) -> Int32:
    lanes = -(-count // LANE)
    if not data or data[0] > 32:
        raise CorruptStream("Huffman codes are cut short")
    at = 1 + packed_size(data[0], lanes)
    ends = np.cumsum(unpack_bits(data[1:at], data[0], lanes), dtype=np.int64)
    size = len(data) - at
    if (int(ends[-1]) + 7) // 8 != size:
        raise CorruptStream(f"Huffman codes of {size} octets where {ends[-1]} bits were written")
    # A lane of damaged codes may run past the end by its longest possible length.
    octets = np.frombuffer(data[at:] + bytes(LANE * LONGEST // 8 + 4), np.uint8).astype(np.uint32)
    windows = octets[:-3] << 24 | octets[1:-2] << 16 | octets[2:-1] << 8 | octets[3:]
    position = np.append(0, ends[:-1])
    tail = count - (lanes - 1) * LANE
    out = np.zeros((min(LANE, count), lanes), np.int32)
    last = position[-1]
    for step in range(len(out)):
        if step == tail:
            last, position = position[-1], position[:-1]
        window = windows[position >> 3] << (position & 7).astype(np.uint32) >> np.uint32(32 - code.longest)
        group = np.searchsorted(code.first, window, side="right") - 1
        length = code.lengths[group]
        rank = (window - code.first[group]).astype(np.int64) >> code.longest - length
        out[step, : len(position)] = code.places[code.base[group] + rank]
        position = position + length
    if tail < LANE and tail < len(out):
        position = np.append(position, last)
    if (position != ends).any():
        raise CorruptStream("Huffman codes do not end where they should")
    return out.T.ravel()[:count]
