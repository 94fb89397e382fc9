"""DocstringFences: a Griffe extension that lets the site show the docstrings of this package as they are written.

Their examples are plain `>>>` paragraphs, as doctest reads them; in Markdown these would be quotations. Their sections
follow one another without an empty line, and the text of an entry may continue without an indentation: Griffe expects
both.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

# From a line with a prompt up to an empty line, or the end.
EXAMPLE = re.compile(r"^>>> .*?(?=\n[ \t]*\n|\Z)", re.M | re.S)
# Some are in a section of their own.
SECTION_OF_EXAMPLES = re.compile(r"^Examples?:\n((?:    .*\n?|\n)+)", re.M)
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Warns|Yields):\n", re.M)
# The entries of a section: each begins with the name of a parameter, an attribute, or the class of an error.
ENTRIES = re.compile(r"^(?:Args|Attributes|Raises|Warns):\n((?:    .*\n?)+)", re.M)
CONTINUED = re.compile(r"^    (?! |[\w.]+(?:, [\w.]+)*: )", re.M)


def for_the_site(text: str) -> str:
    """The docstring with an empty line before each section, indented continuations, and examples in code blocks."""
    text = ENTRIES.sub(lambda found: CONTINUED.sub(" " * 8, found[0]), text)
    text = SECTION_OF_EXAMPLES.sub(lambda found: textwrap.dedent(found[1]), text)
    text = SECTION.sub(r"\n\1:\n", text)
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```", text)


class DocstringFences(griffe.Extension):
    """Changes each docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = for_the_site(obj.docstring.value)
