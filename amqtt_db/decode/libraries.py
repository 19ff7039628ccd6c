"""What decoders need from outside: libraries, which are extras, and files of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amqtt_db.decode.checks import Decoder
from amqtt_db.errors import DecodeError
from amqtt_db.registry import install_hint


def require_library(extra: str, library: str) -> None:
    """Raise ValueError, saying which extra to install, if the library is missing."""
    try:
        found = find_spec(library)
    except ImportError:  # the package around it is missing
        found = None
    if found is None:
        raise ValueError(f"needs the library {library}: {install_hint(extra)}")


def import_library(extra: str, library: str, module: str) -> Any:
    """Return the module that uses a library.  Raises ValueError if one of them cannot be imported."""
    require_library(extra, library)
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"the library {library} cannot be imported: {error}; {install_hint(extra)}") from None


def read_file(option: str, path: str) -> bytes:
    """Return the content of a file that an option names.  Raises ValueError."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: cannot read {_place(path)}: {_explain_file(error)}") from None


def read_folder(option: str, path: str, ending: str) -> Mapping[str, bytes]:
    """Return the contents of a folder's files with this ending, by their names without it.  Raises ValueError."""
    try:
        files = sorted(file for file in Path(path).iterdir() if file.name.endswith(ending))
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: cannot read {_place(path)}: {_explain_file(error)}") from None
    if not files:
        raise ValueError(f"{option}: the folder {path} has no file that ends in {ending}")
    return {file.name.removesuffix(ending): read_file(option, str(file)) for file in files}


def _place(path: str) -> str:
    """Return a path, and the directory in which a relative one is looked for."""
    return path if Path(path).is_absolute() else f"{path} in {Path.cwd()}"


def _explain_file(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def make_lazy(extra: str, library: str, module: str) -> Decoder:
    """Return a decoder whose module is imported with the first message, because the broker's process decodes none.

    Raises ValueError if its library is missing; if the library cannot be imported, messages become dead letters.
    """
    require_library(extra, library)
    decode: Decoder | None = None

    def decode_with_library(payload: bytes) -> Any:
        nonlocal decode
        if not payload:
            raise DecodeError("empty payload")
        if decode is None:
            decode = _import_decoder(extra, library, module)
        return decode(payload)

    return decode_with_library


def _import_decoder(extra: str, library: str, module: str) -> Decoder:
    try:
        decode: Decoder = import_module(module).decode
    except ImportError:
        raise DecodeError(f"the library {library!r} cannot be imported; {install_hint(extra)}") from None
    return decode
