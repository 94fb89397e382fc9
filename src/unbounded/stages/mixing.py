"""Mixing: the node of a mix, which takes rows of its inputs as the quotas deal them, and absorbs their boundaries.

The input of an output row is a function of the weights, the seed and the row's number (see `quotas`). Which inputs were
silent at the edge of a group depends on arrival, and is an entry in the arrival log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block, Offset
from unbounded.core.cursor import Cursor, input_cursors, own_part
from unbounded.core.decisions import Decisions
from unbounded.core.input_buffer import addresses, compose_held
from unbounded.core.node import Context, EndOfStream, Inner, Node
from unbounded.core.row_spec import same_spec
from unbounded.core.trees import RowsError
from unbounded.stages.mix_input import MixInput, differs
from unbounded.stages.mix_rows import scattered
from unbounded.stages.quotas import BLOCK, GROUP, Dealer, Quotas, Table, edge_after
from unbounded.stages.tap import NewRows

BATCHES = 256
"""A block has so many batches at most: the first one comes before many more rows of a fast input were read."""


class Mixing(Inner):
    """The node of `unbounded.mix`.

    Args:
        inputs: the nodes of the inputs.
        names: of the inputs.
        leaves: the number of sources of each.
        table: the weights.
        dealer: deals the output rows.
        context: the arguments with which nodes are opened.
        leave_out_after: seconds after which an input without rows is left out; None waits for it.
        to_the_last: True to continue until all inputs have ended; False to end with the first.
    """

    def __init__(
        self,
        inputs: Sequence[Node],
        names: Sequence[str],
        leaves: Sequence[int],
        table: Table,
        dealer: Dealer,
        context: Context,
        *,
        leave_out_after: float | None,
        to_the_last: bool,
    ) -> None:
        self.inputs = tuple(inputs)
        firsts = np.cumsum([0, *leaves])[:-1].tolist()
        self._inputs = [MixInput(*each) for each in zip(inputs, names, firsts, strict=True)]
        self._table = table
        self._dealer = dealer
        self._context = context
        self._patience = leave_out_after
        self._to_the_last = to_the_last
        self._timed = False  # True once rows have arrival times
        # The inputs left out, by groups of output rows; None if each input is waited for.
        self._log = None if leave_out_after is None else context.arrivals.of(f"{context.place}.mix")
        self.waits_for: str | None = None
        """The name of the input that it waits for."""
        self.new_rows: NewRows | None = None
        """None: the rows that can be tested before training are those of its inputs."""
        self._begin({"given": 0})

    def _begin(self, own: Mapping[str, Any]) -> None:
        self._decisions = None if self._log is None else self._log.decisions
        self._given = own["given"]  # output rows that were returned, including those of ended inputs
        self._since, self._out = own.get("since", 0), tuple(own.get("out", ()))
        self._ended: set[int] = set(own.get("ended", ()))  # inputs that ended in the current group
        self._quotas = Quotas(self._table, self._since, self._out)
        # The inputs left out are decided up to here: the end of the current group.
        self._until = edge_after(self._given) if self._given % GROUP else self._given
        self._returned: set[int] = set()  # inputs that came back at the last edge
        self._silent_since: float | None = None  # when the edge of a group was reached with an input without rows
        for each, passes in zip(self._inputs, own.get("passes", [0] * len(self._inputs)), strict=True):
            each.begin(passes)

    # -- pulling -----------------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | None:
        while True:
            if self._given % GROUP == 0 and not self._begin_group(timeout):
                return None
            found = self._next(timeout)
            if found is None:
                return None
            if found.count:
                return found

    def _next(self, timeout: float | None) -> Block | None:
        """The next rows, as many as are available and fit into a block; None if there are none yet. A block without
        rows stands for rows of inputs that have ended."""
        stop = min(self._given + self._piece(), self._until)
        if self._ended:
            stop = min(stop, edge_after(self._given))
        number = self._given // (GROUP * BLOCK)
        first = number * GROUP * BLOCK
        dealt = self._dealer.deal(number, self._quotas)
        while True:
            inputs = dealt[self._given - first : max(self._given, stop) - first]
            places = [np.flatnonzero(inputs == i) for i in range(len(self._inputs))]
            lacking = {
                i: int(place[each.count])
                for i, (each, place) in enumerate(zip(self._inputs, places, strict=True))
                if not each.has(len(place)) or each.count < len(place)
            }
            gone = {i for i in lacking if self._to_the_last and self._inputs[i].ended}
            # In the group in which an input ends, its rows are missing; later, the other inputs take their place.
            edges = [edge_after(self._given + lacking[i]) for i in gone]
            if min(edges, default=stop) >= stop:
                break
            stop = min(edges)
        limit = min((at for i, at in lacking.items() if i not in gone), default=len(inputs))
        if not limit:
            return self._wait(int(inputs[0]), timeout)
        self.waits_for = None
        at_hand = [place[: each.count] for each, place in zip(self._inputs, places, strict=True)]
        block = self._gather([place[: np.searchsorted(place, limit)] for place in at_hand], limit)
        self._ended |= {i for i in gone if lacking[i] < limit}
        self._given += limit
        return block

    def _wait(self, index: int, timeout: float | None) -> Block | None:
        """Wait for an input that is needed for the next row."""
        waited = self._inputs[index]
        if waited.ended:
            raise EndOfStream
        self.waits_for = waited.name
        # What was read is used by the next turn of the loop.
        return Block(None, 0) if waited.read(timeout) or waited.ended else None

    def _piece(self) -> int:
        """The number of rows to return at once: whole batches."""
        rows = next((each.rows for each in self._inputs if each.rows is not None), None)
        batch = self._context.batch_rows
        if self._context.block_rows:
            return self._context.block_rows
        if rows is None:
            return -self._given % batch or GROUP
        most = max(GROUP // batch, BATCHES) * batch
        return -self._given % batch or min(most, trees.block_rows(trees.row_bytes(rows), batch))

    def _gather(self, places: list[NDArray[Any]], limit: int) -> Block:
        """The rows of all inputs at places from 0 up to `limit`, as one block. They are dropped from the inputs."""
        count = sum(map(len, places))
        if not count:
            return Block(None, 0)
        if count < limit:  # `seen` of missing rows is left out
            taken = np.zeros(limit, bool)
            for place in places:
                taken[place] = True
            moved = np.cumsum(taken) - 1
            places = [moved[place] for place in places]
        parts: list[tuple[NDArray[Any], Block]] = []
        provenance = np.empty(count, np.int64)
        for each, place in zip(self._inputs, places, strict=True):
            at = 0
            for block, passes in each.peek(len(place)):
                here = place[at : at + block.count]
                provenance[here] = each.provenance(block, passes)
                parts.append((here, block))
                at += block.count
        self._check_structure()
        self._timed = self._timed or any(block.times is not None for _, block in parts)
        out = scattered(count, parts, provenance, timed=self._timed)
        for each, place in zip(self._inputs, places, strict=True):
            each.drop(len(place))
        return out

    def _check_structure(self) -> None:
        known = [each for each in self._inputs if each.rows is not None]
        for each in known[1:]:
            if not same_spec(known[0].rows, each.rows):
                raise RowsError(differs("mix", each.name, each.rows, known[0].name, known[0].rows))

    # -- the edges of groups -----------------------------------------------------------------------------------------

    def _begin_group(self, timeout: float | None) -> bool:
        """Decide which inputs have a share in the next group; False if that is not known yet."""
        group = self._given // GROUP
        if self._ended:
            self._leave_out((*self._out, *self._ended), group)
            self._ended = set()
        following = self._quotas.next_with_rows(group)
        if following is None:
            raise EndOfStream
        group = following
        self._given = group * GROUP
        if self._decisions is None:
            self._until = (group // BLOCK + 1) * BLOCK * GROUP
            return True
        until = self._settle(group, timeout, self._decisions)
        if until is None:
            return False
        self._until = min(until, (group // BLOCK + 1) * BLOCK) * GROUP
        self._silent_since = None
        return True

    def _leave_out(self, out: Collection[int], group: int) -> None:
        if (now := tuple(sorted(set(out)))) != self._out:
            self._since, self._out = group, now
            self._quotas = Quotas(self._table, group, now)

    def _settle(self, group: int, timeout: float | None, decisions: Decisions) -> int | None:
        """Decide which inputs are left out from this group on: by the arrival log, or by which inputs have their whole
        quota. Return the group up to which the decision holds; None while waiting for rows."""
        decided = decisions.at(group)
        if decided is None:
            found = self._who_is_out(group, timeout)
            if found is None:
                return None
            out, until = found
            decisions.note(group, until, out)
            self._returned = set(self._out).difference(out)
        else:
            out, until = decided.decision, decided.stop
        assert self._log is not None
        self._log.write()  # before any row of the group is returned; again, if a first attempt failed
        self._leave_out(out, group)
        return until

    def _who_is_out(self, group: int, timeout: float | None) -> tuple[tuple[int, ...], int] | None:
        """The inputs to leave out from this group on, and the group up to which; None while waiting for rows."""
        out = {i for i in self._out if not self._may_return(i, group)}
        quotas = self._quotas if len(out) == len(self._out) else Quotas(self._table, group, out)
        wanted = quotas.of(group)
        present = [i for i, rows in enumerate(wanted) if rows and i not in out]
        lacking = [i for i in present if not self._inputs[i].has(wanted[i])]
        if lacking:
            runtime = self._context.runtime
            if self._silent_since is None:
                self._silent_since = runtime.monotonic()
            staying = set(present).difference(lacking) or {i for i in present if self._inputs[i].count}
            # An input that just came back and is too slow for its share is not waited for in each group again.
            patient = runtime.monotonic() - self._silent_since < (self._patience or 0.0)
            if not staying or (patient and not self._returned.issuperset(lacking)):
                self.waits_for = self._inputs[lacking[0]].name
                self._inputs[lacking[0]].read(timeout)
                return None
            out |= set(present) - staying
            quotas = self._quotas if out == set(self._out) else Quotas(self._table, group, out)
        # As far as all inputs have rows; group by group while one is left out, since it may come back.
        silent = any(not self._inputs[i].ended for i in out)
        until = group + (1 if silent else max(1, self._piece() // GROUP))
        if until > group + 1:
            ahead = [b - a for a, b in zip(quotas.taken(group), quotas.taken(until), strict=True)]
            if not all(each.has(rows) for each, rows in zip(self._inputs, ahead, strict=True)):
                until = group + 1
        return tuple(sorted(out)), until

    def _may_return(self, index: int, group: int) -> bool:
        """True if an input that was left out has its quota again, or has ended meanwhile."""
        each = self._inputs[index]
        rows = max(1, Quotas(self._table, group, set(self._out) - {index}).of(group)[index])
        if not each.has(rows):
            return False
        # One that has ended returns with the rest of its rows; without any, for the mix to end where it is to.
        return each.count > 0 or not self._to_the_last

    # -- cursors -----------------------------------------------------------------------------------------------------

    def own(self) -> Mapping[str, Any]:
        own: dict[str, Any] = {"given": self._given, "passes": [each.passes for each in self._inputs]}
        if self._since or self._out:
            own |= {"since": self._since, "out": list(self._out)}
        if self._ended:
            own["ended"] = sorted(self._ended)
        return own

    def cursor(self) -> Cursor:
        return compose_held([each.buffer.address(Offset(each.given)) for each in self._inputs], self.own())

    def restore(self, cursor: Cursor) -> None:
        self._for_inputs(input_cursors(cursor))
        for each, address in zip(self._inputs, addresses(cursor), strict=True):
            each.buffer.restore(address)
        self._begin(own_part(cursor))

    def release(self, cursor: Cursor) -> None:
        super().release(cursor)
        if self._log is not None:
            # Not past what was given on: a prefetch thread may pass it on after a state of before was loaded.
            self._log.release(min(own_part(cursor)["given"], self._given) // GROUP)
