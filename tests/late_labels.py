"""Rows whose labels come later, for tests: some too late, some never."""

import numpy as np

import unbounded as ub

ROWS = 300
X = np.random.default_rng(0).random((ROWS, 3), "float32")
WITHIN = 30


def delay(ids):
    """Each label comes 5 to 36 seconds after its row, of which some are too late."""
    return 5 + 7 * ids % 32


def target(ids):
    return (X[ids % ROWS].sum(1, keepdims=True) + (ids % ROWS)[:, None] / ROWS).astype("float32")


def rows(start=0):
    for i in range(start, 10**9, 7):
        ids = np.arange(i, i + 7)
        yield {"id": ids, "t": ids * 1.0, "x": X[ids % ROWS]}


def labels(start=0):
    """In the order of their times; a fifth of the rows never have one."""
    before = 0
    for second in range(0, 10**9, 11):
        ids = np.arange(max(0, second - 40), second + 11)
        ids = ids[ids % 5 != 4]
        times = ids + delay(ids)
        ids = ids[(times >= second) & (times < second + 11)]
        ids = ids[np.argsort(ids + delay(ids), kind="stable")]
        before += len(ids)
        if before > start:
            ids = ids[max(0, start - before + len(ids)) :]
            yield {"id": ids, "t": (ids + delay(ids)) * 1.0, "y": target(ids)}


def live_rows():
    """The same, which can't go back: they are logged."""
    yield from rows()


def live_labels():
    yield from labels()


def joined(live=False, **given):
    made = ub.from_generator(live_rows if live else rows)
    return made.join(ub.from_generator(live_labels if live else labels), on="id", time="t", within=WITHIN, **given)


def to_xy(rows):
    return rows["x"], rows["y"]


def weighted(rows):
    known = np.isfinite(rows["y"][:, 0])
    return rows["x"], np.nan_to_num(rows["y"]), known.astype("float32")


STREAMS = {
    "plain": lambda: joined().columns("x", "y").batch(8),
    "shuffle": lambda: joined().shuffle(30).columns("x", "y").batch(8),
    "replay": lambda: joined().replay(40, reuse=2).batch(8).map(to_xy),
    "rare replay": lambda: joined().columns("x", "y").replay(2, reuse=0.25).batch(4),
    "filter": lambda: joined().shuffle(20).filter(lambda r: r["y"][:, 0] < 1.8).map(to_xy).batch(8),
    "keep": lambda: joined(unmatched="keep").map(weighted).shuffle(9).batch(8),
}


def by_hand(many=2000):
    """The rows and pairs in the order in which they come: (number, 0) and (number, 1)."""
    ids = np.arange(many)
    events = [(float(i), 0, i) for i in ids]
    events += [(float(i + delay(i)), 1, i) for i in ids if i % 5 != 4 and delay(i) <= WITHIN]
    return [(number, kind) for _, kind, number in sorted(events)]
