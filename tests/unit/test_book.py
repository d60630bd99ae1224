"""The books of a port in C: a dict and a list, as far as ports use those."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portio import accelerator
from portio.engine import GENERATION, TOKENS

SLOTS = 40

tokens = st.builds(
    lambda life, slot: (life * GENERATION + slot) & TOKENS,
    st.sampled_from([1, 2, TOKENS // GENERATION]),
    st.integers(1, SLOTS),
)


@given(st.lists(st.tuples(st.sampled_from(["set", "del", "pop", "get"]), tokens)))
def test_it_does_what_a_dict_does(steps: list[tuple[str, int]]) -> None:
    book, model = accelerator.Book(), dict[int, Any]()
    for number, (step, token) in enumerate(steps):
        slot = token % GENERATION
        if step == "set":
            if any(other != token and other % GENERATION == slot for other in model):
                continue  # a slot has one token at a time
            book[token] = model[token] = number, token
        elif step == "pop":
            assert book.pop(token, None) == model.pop(token, None)
        elif token in model:
            assert book[token] is model[token]
            if step == "del":
                del book[token], model[token]
        else:
            with pytest.raises(KeyError):
                (book.__delitem__ if step == "del" else book.__getitem__)(token)
        assert (token in book) is (token in model)
        assert len(book) == len(model)
        assert bool(book) is bool(model)
    assert book == model
    assert book.copy() == model
    assert sorted(book) == sorted(model)
    assert repr(book.copy()) == repr(book)


@given(st.lists(st.one_of(st.none(), tokens, st.lists(tokens))))
def test_free_tokens_are_a_stack(steps: list[int | list[int] | None]) -> None:
    free, model = accelerator.Tokens(), list[int]()
    for step in steps:
        if isinstance(step, list):
            free += step
            model += step
        elif step is not None:
            free.append(step)
            model.append(step)
        elif model:
            assert free.pop() == model.pop()
        else:
            with pytest.raises(IndexError):
                free.pop()
        assert list(free) == model
        assert len(free) == len(model)
    if model:
        assert free[-1] == model[-1]


def test_two_tokens_of_one_slot() -> None:
    """It would lose the first: rather an error."""
    if not accelerator.ACCELERATED:
        pytest.skip("there is no accelerator here, and a dict takes both")
    book = accelerator.Book()
    book[GENERATION + 1] = "first"
    with pytest.raises(RuntimeError, match="used"):
        book[2 * GENERATION + 1] = "second"
    assert book == {GENERATION + 1: "first"}


@pytest.mark.parametrize("wrong", ["1", None, -1, 1 << 64])
def test_what_is_no_token(wrong: Any) -> None:
    if not accelerator.ACCELERATED:
        pytest.skip("there is no accelerator here, and a dict takes everything")
    book, free = accelerator.Book(), accelerator.Tokens()
    for refused in (
        lambda: book[wrong],
        lambda: book.__setitem__(wrong, 1),
        lambda: book.__delitem__(wrong),
        lambda: book.pop(wrong, None),
        lambda: wrong in book,
        lambda: free.append(wrong),
        lambda: free.__iadd__([wrong]),
    ):
        with pytest.raises((TypeError, OverflowError)):
            refused()
    assert book == {}
    assert list(free) == []


class Thing:
    """What is in a book, and refers to it."""

    book: Any
    ended: Any = None

    def __del__(self) -> None:
        if self.ended is not None:
            self.ended()


def test_cycles_are_collected() -> None:
    book = accelerator.Book()
    thing = Thing()
    thing.book = book
    book[GENERATION + 1] = thing
    gone = weakref.ref(thing)
    del book, thing
    gc.collect()
    assert gone() is None


def test_what_an_end_does_to_the_book() -> None:
    """An entry's finalizer may enter others, also so many that the book grows."""
    chance = random.Random(7)
    book = accelerator.Book()

    def grow() -> None:
        for slot in chance.sample(range(100, 5000), 50):
            book[GENERATION + slot] = slot

    for slot in range(1, 20):
        thing = Thing()
        thing.ended = grow
        book[GENERATION + slot] = thing
    for slot in range(1, 20):
        if slot % 2:
            del book[GENERATION + slot]
        else:
            book[GENERATION + slot] = None
        for entered in [token for token in book if token % GENERATION >= 100]:
            assert book.pop(entered, None) is not None
    assert len(book) == 9
