"""Sequences of buffers: vectors and blocks."""

from __future__ import annotations

import array
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portio
from portio import backends
from portio.buffers import Block, Vectors, as_sequence

try:
    ffi = backends.choose(None)[0].ffi
except portio.BackendUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)
CHARS = ffi.typeof("char[]")


def contents(vectors: Vectors) -> list[bytes]:
    return [
        bytes(ffi.buffer(vectors.array[at].base, vectors.array[at].length))
        for at in range(vectors.count)
    ]


def test_vectors_refer_to_the_buffers_in_order() -> None:
    parts: list[Any] = [b"one", bytearray(), memoryview(b"xthreex")[1:6], array.array("B", [52])]
    vectors = Vectors(ffi, CHARS, parts, writable=False)
    assert contents(vectors) == [b"one", b"", b"three", b"4"]


def test_no_vectors_at_all() -> None:
    vectors = Vectors(ffi, CHARS, [], writable=True)
    assert (vectors.count, vectors.array) == (0, ffi.NULL)


def test_vectors_pin_and_let_go() -> None:
    buffer = bytearray(4)
    vectors = Vectors(ffi, CHARS, [b"", buffer], writable=False)
    with pytest.raises(BufferError):
        buffer.append(1)
    del vectors
    buffer.append(1)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"read-only", BufferError),
        (memoryview(bytearray(8))[::2], BufferError),
        ("text", TypeError),
        (5, TypeError),
    ],
)
def test_one_bad_buffer_leaves_none_pinned(bad: Any, kind: type[Exception]) -> None:
    buffer = bytearray(4)
    with pytest.raises(kind, match="buffer 1 of the sequence: "):
        Vectors(ffi, CHARS, [buffer, bad], writable=True)
    buffer.append(1)
    with pytest.raises((TypeError, BufferError)):
        Block(ffi, CHARS, [buffer, bad])
    buffer.append(1)


@given(st.lists(st.binary(max_size=5), max_size=20), st.data())
def test_a_block_is_scattered_in_order(parts: list[bytes], data: st.DataObject) -> None:
    buffers = [bytearray(len(part)) for part in parts]
    message = b"".join(parts)
    size = data.draw(st.integers(0, len(message)))
    block = Block(ffi, CHARS, buffers)
    assert len(block.pin) == len(message)
    ffi.buffer(block.pin)[:size] = message[:size]
    for _ in range(2):  # it may be settled again
        assert block.settle(size, 0) == (size, size)
        assert b"".join(buffers) == message[:size].ljust(len(message), b"\0")


def test_a_block_of_items_that_are_no_bytes() -> None:
    items = array.array("H", [0, 0])
    block = Block(ffi, CHARS, [items, bytearray(1)])
    ffi.buffer(block.pin)[:] = b"\1\0\2\0\3"
    block.settle(5, 0)
    assert items.tobytes() == b"\1\0\2\0"


def test_what_is_a_sequence_of_buffers() -> None:
    refused = TypeError("no buffer")
    parts = deque([b"x"])
    assert as_sequence(parts, refused) is parts
    for bad in ("text", 5, None, {b"x"}, iter([b"x"])):
        with pytest.raises(TypeError, match="a bytes-like object or a sequence of them") as caught:
            as_sequence(bad, refused)
        assert caught.value.__cause__ is refused
