"""The representations of streams and feeds: each part as the user wrote it, and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from unbounded.core import trees


def words(part: Any) -> str:
    """A source or a stage as the user wrote it."""
    return call(part.word, part.arguments())


def call(word: str, arguments: dict[str, Any]) -> str:
    """A call of `word`, as Python source."""
    return f"{word}({_arguments(arguments)})"


def _arguments(arguments: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return (
            getattr(value, "__name__", None) or repr(value)
            if callable(value)
            else (value if isinstance(value, str) else repr(value))
        )

    first, shown = True, []
    for name, value in arguments.items():
        if isinstance(value, tuple) and name == "columns":
            shown += [repr(v) for v in value]
        else:
            shown.append(
                text(value)
                if first or not name
                else f"{name}={value!r}"
                if not callable(value)
                else f"{name}={text(value)}"
            )
        first = False
    return ", ".join(shown)


class Line(NamedTuple):
    """One part of a stream in the table: its text, indented by the mixes around it; the part; and the rows that it
    gives in a pass, if known."""

    text: str
    part: Any
    rows: int | None


def stream(lines: Sequence[Line], batch_rows: int | None, guarantee: str) -> str:
    """An HTML table of a stream's parts: rows in a pass, rows held back and their memory, and the guarantee."""
    sources = [part.source for _, part, _ in lines if hasattr(part, "source")]
    given = next((source.rows for source in sources if hasattr(source, "rows")), None)
    row_bytes = None if given is None else trees.row_bytes(given)
    body = []
    for text, part, count in lines:
        held = _held(part, batch_rows)
        memory = "" if not held else f"{held:,} rows"
        if held and row_bytes is not None:
            memory += f", {size(held * row_bytes)}"
        cells = [
            f"<code>{html.escape(text).replace('  ', '&emsp;')}</code>",
            "" if count is None else f"{count:,}",
            memory,
            part.promise,
        ]
        body.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th style='text-align:left'>{title}</th>" for title in ("stage", "rows a pass", "holds back", "promise")
    )
    note = "" if row_bytes is None else "; memory is the size of the rows as NumPy arrays"
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        f"<p>guarantee: <b>{guarantee.replace('_', ' ')}</b>{note}</p>"
    )


def feed(figures: Sequence[tuple[str, str]], of: str) -> str:
    """An HTML table of a feed's figures, followed by the table of its stream."""
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in figures
    )
    return f"<table><tbody>{body}</tbody></table>{of}"


def _held(part: Any, batch_rows: int | None) -> int:
    """The most rows that a stage holds back; 0 if it holds none or the number is unknown."""
    match part.word:
        case "shuffle" | "buffer":
            return int(part.rows)
        case "replay":
            return int(part.capacity)
        case "windows":
            return int(part.length) - 1
        case "random_map":
            return 0 if part.batched else int(part.group)
        case "batch":
            return int(part.rows) - 1
        case "prefetch":
            return int(part.batches) * (batch_rows or 0)
    return 0


def size(count: float) -> str:
    """A number of bytes with its unit."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = 0
    while count >= 1000 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:,.0f} {units[power]}" if not power or count >= 100 else f"{count:,.1f} {units[power]}"
