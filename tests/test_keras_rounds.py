"""What beginning a round costs, and that one which was left goes back, over stages that hold rows of many keys."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Feed

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

KEYS = 2_000


def rows(start: int = 0) -> Iterator[Any]:
    while True:
        numbers = np.arange(start, start + 500)
        yield {"key": numbers % KEYS, "x": np.sin(numbers).astype(np.float32)}
        start += 500


@pytest.mark.parametrize("validation", ["same", "next"])
def test_a_round_makes_no_text_of_the_rows_of_keys_and_is_begun_again_where_it_was_left(
    validation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = base64.b64encode

    def noted(data: Any, *args: Any) -> bytes:
        sizes.append(len(data))
        return encode(data, *args)

    stream = ub.from_generator(rows).windows(4, by="key").batch(50)
    with Feed(stream, ub.Epoch(steps=200), validation=validation) as feed:
        rounds = feed.rounds
        monkeypatch.setattr(base64, "b64encode", noted)

        def seen(steps: int) -> list[Any]:
            rounds.begin(None, "evaluate")
            found = []
            for _ in range(steps):
                rounds.fetch(1)
                found.append(rounds.feed.take()["x"].copy())
            return found

        whole = seen(120)
        rounds.back()
        again = seen(200)
        assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=False))
        assert max(sizes, default=0) < 1_000
