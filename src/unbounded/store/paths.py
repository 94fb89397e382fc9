"""Checks of paths and URLs that users give."""

from __future__ import annotations

import os
import re
from pathlib import Path

# "gs://bucket/run", or "gs:/bucket/run" after `Path` has normalised it. A single letter is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def is_url(given: object) -> bool:
    """True for the URL of a remote directory. False for `file:` URLs: `local_path` refuses them with advice.

    >>> is_url("s3://bucket/run"), is_url("runs/first"), is_url("file:///data/run")
    (True, False, False)
    """
    url = _URL.fullmatch(str(given)) if isinstance(given, str | os.PathLike) else None
    return url is not None and url[1].lower() != "file"


def as_url(given: str) -> tuple[str, str]:
    """A URL's scheme and the rest, also if `Path` has removed a slash.

    >>> as_url("s3:/bucket/run")
    ('s3', 'bucket/run')
    """
    url = _URL.fullmatch(given)
    assert url is not None
    return url[1].lower(), url[2]


def local_path(given: object) -> Path:
    """A directory or file that a user gave, as a path; URLs are refused.

    Raises:
        ValueError: it is a URL, from which `Path` would make a directory named by the scheme; or it is empty.

    >>> local_path("runs/first").parts
    ('runs', 'first')
    >>> local_path("file:///data/run")
    Traceback (most recent call last):
    ValueError: 'file:///data/run' is a URL, and a path is expected: give '/data/run'.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{given!r} was given as a path, and a directory or file is expected, such as 'runs/first'.")
    text = str(given)
    if not text:
        raise ValueError("An empty path was given, and a directory or file is expected, such as 'runs/first'.")
    url = _URL.fullmatch(text)
    if url is None:
        return Path(given)
    if url[1].lower() == "file":
        path = "/" + url[2].removeprefix("localhost/")
        raise ValueError(f"{text!r} is a URL, and a path is expected: give {path!r}.")
    raise ValueError(
        f"{text!r} is a URL, and a path on a local or mounted file system is expected: give one such as 'runs/first', "
        "or one below the mount point of the bucket."
    )
