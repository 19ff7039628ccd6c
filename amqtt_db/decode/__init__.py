"""Decoders: from the bytes of a payload to plain data.

A decoder is any callable that takes the payload and returns plain data.  A generator function makes several records
from one message: it yields their data, and :func:`resolve`'s decoder returns a generator of them.  A decoder with a
method ``remembers`` gets more than the payload: see :mod:`amqtt_db.decode.remembering`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from types import GeneratorType
from typing import Annotated, Any, Final, get_args, get_origin

import attrs

from amqtt_db.decode.by_level import DecoderByLevel, OneDecoder, RouteDecoder, choose_decoder, is_remembering
from amqtt_db.decode.by_property import BY_CONTENT_TYPE, DecoderByProperty, media_type
from amqtt_db.decode.checks import Decoder, check_depth, shorten
from amqtt_db.decode.formats import FORMATS, GIVES_BYTES, GIVES_TIME
from amqtt_db.decode.json_text import EMPTY, decode_many, decodes_json
from amqtt_db.decode.remembering import Arrival, Memory, Recollection, RememberingDecoder, apply_stage
from amqtt_db.errors import DecodeError, Problem, find_place
from amqtt_db.registry import SpecError, load, suggest

__all__ = [
    "DECODER_GROUP",
    "EMPTY",
    "Arrival",
    "Decoder",
    "DecoderByLevel",
    "DecoderByProperty",
    "Memory",
    "Recollection",
    "RememberingDecoder",
    "RouteDecoder",
    "choose_decoder",
    "decode_many",
    "decodes_json",
    "is_remembering",
    "resolve",
    "time_given_by",
]

DECODER_GROUP: Final = "amqtt_db.decoders"
"""The entry point group in which packages offer decoders."""

_BY: Final = "by"
_ELSE: Final = "else"
_USER_PROPERTY: Final = "user_property"


@attrs.frozen
class _Stage:
    """One step of a pipeline: its name, what it does, and whether it is the user's own."""

    name: str
    decode: Callable[..., Any]
    own: bool

    @property
    def remembers(self) -> Callable[[str], Sequence[str]] | None:
        """The method of a decoder that gets the message and what it remembers, not just the payload."""
        return getattr(self.decode, "remembers", None)


def resolve(spec: Any, *, where: str) -> RouteDecoder:
    """Return the decoder that ``spec``, a value from the YAML at the path ``where``, describes.

    A mapping with the key ``by`` names a level of the topic or an MQTT 5 property, and the spec of a decoder for each
    of its values; ``else`` is for all others.  See :func:`resolve_one` for what else a spec may be.

    Raises SpecError, a ValueError that holds every mistake in the spec.
    """
    if not isinstance(spec, Mapping) or _BY not in spec:
        return resolve_one(spec, where=where)
    problems = [*_choice_problems(spec, where)]
    found: dict[str, OneDecoder] = {}
    for value, one in spec.items():
        try:
            if value != _BY and isinstance(value, str):
                found[value] = resolve_one(one, where=f"{where}.{value}")
        except SpecError as error:
            problems += error.problems
    by = spec[_BY]
    if _is_property(by):
        problems += _remembering_problems(found, where)
    if problems:
        raise SpecError(*problems)
    other = found.pop(_ELSE, None)
    return _by_property(by, found, other) if _is_property(by) else DecoderByLevel(_level_in(by), found, other)


def resolve_one(spec: Any, *, where: str) -> OneDecoder:
    """Return the decoder of a spec that does not depend on the topic.

    A spec is a name (a built-in format, an entry point, a dotted path), a mapping of one name to its options, or a list
    of those: a pipeline, in which each stage takes the result of the one before it.  A class is created with the
    options; any other callable gets them as keyword arguments with each payload.  The decoder raises only DecodeError.

    Raises SpecError, a ValueError that holds every mistake in the spec.
    """
    parts = spec if isinstance(spec, list) else [spec]
    if not parts:
        raise SpecError(Problem(where, "the pipeline is empty; name at least one decoder"))
    paths = [f"{where}[{index}]" for index in range(len(parts))] if isinstance(spec, list) else [where]
    problems: list[Problem] = []
    stages = [_try_stage(part, path, problems) for part, path in zip(parts, paths, strict=True)]
    problems += _order_problems(parts, paths)
    problems += _memory_problems(stages, paths)
    if problems:
        raise SpecError(*problems)
    return _compose([stage for stage in stages if stage])


def _choice_problems(spec: Mapping[Any, Any], where: str) -> Iterator[Problem]:
    by = spec[_BY]
    if not _level_in(by) and not _is_property(by):
        expected = (
            f"expected a level of the topic such as '{{format}}', {BY_CONTENT_TYPE} or {{{_USER_PROPERTY}: name}}"
        )
        yield Problem(f"{where}.{_BY}", f"{expected}, got {by!r}")
    if len(spec) == 1:
        yield Problem(where, "names no decoder; add one for each value, or `else`")
    for value in spec:
        if not isinstance(value, str):
            yield Problem(where, f"{value!r} is not text; quote it so that YAML reads it as text")


def _level_in(by: Any) -> str:
    """Return a level's name; in YAML, ``{format}`` without quotes is a mapping of that one key to nothing."""
    if isinstance(by, Mapping):
        by = next(iter(by)) if [*by.values()] == [None] else ""
    return by.strip("{}") if isinstance(by, str) else ""


def _is_property(by: Any) -> bool:
    """Return True if decoders are chosen by an MQTT 5 property of the message."""
    if isinstance(by, Mapping):
        return [*by] == [_USER_PROPERTY] and isinstance(by[_USER_PROPERTY], str)
    return bool(by == BY_CONTENT_TYPE)


def _remembering_problems(found: Mapping[str, OneDecoder], where: str) -> Iterator[Problem]:
    for value, decoder in found.items():
        if isinstance(decoder, RememberingDecoder):
            hint = "give such topics a route of their own, or choose by a level of the topic"
            yield Problem(f"{where}.{value}", f"{decoder.owner} remembers messages of a topic: {hint}")


def _by_property(by: Any, found: Mapping[str, OneDecoder], other: OneDecoder | None) -> DecoderByProperty:
    name = by[_USER_PROPERTY] if isinstance(by, Mapping) else None
    read = str if name is not None else media_type
    plain = {read(value): decoder for value, decoder in found.items() if not isinstance(decoder, RememberingDecoder)}
    return DecoderByProperty(plain, name, None if isinstance(other, RememberingDecoder) else other)


def time_given_by(spec: Any) -> str | None:
    """Return the property in which the decoder of a spec gives the event's time, None if it knows no time.

    Several decoders must all give it in the same property.
    """
    if isinstance(spec, Mapping) and _BY in spec:
        given = {time_given_by(one) for value, one in spec.items() if value != _BY}
        return given.pop() if len(given) == 1 else None
    last = spec[-1] if isinstance(spec, list) and spec else spec
    name = next(iter(last), None) if isinstance(last, Mapping) else last
    return GIVES_TIME.get(name) if isinstance(name, str) else None


def _try_stage(spec: Any, where: str, problems: list[Problem]) -> _Stage | None:
    try:
        name, options = _split(spec, where)
        if name in FORMATS:
            return _Stage(name, _make_format(name, options, f"{where}.{name}"), own=False)
        return _Stage(name, _make_own(name, options, where), own=True)
    except SpecError as error:
        problems.extend(error.problems)
    return None


def _split(spec: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or len(spec) != 1:
        got = f"{len(spec)} keys" if isinstance(spec, Mapping) else f"{type(spec).__name__} {spec!r}"
        raise SpecError(Problem(where, f"expected a decoder's name or a mapping of one name to its options, got {got}"))
    ((name, options),) = spec.items()
    if not isinstance(name, str):
        raise SpecError(Problem(where, f"expected a decoder's name, got {name!r}"))
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(option, str) for option in options):
        raise SpecError(Problem(f"{where}.{name}", "expected a mapping of the decoder's options"))
    return name, options


def _make_format(name: str, options: Mapping[str, Any], where: str) -> Decoder:
    make = FORMATS[name]
    parameters = inspect.signature(make, eval_str=True).parameters
    problems = [*_option_problems(parameters, options, where)]
    if problems:
        raise SpecError(*problems)
    try:
        return make(**options)
    except ValueError as error:
        raise SpecError(*(Problem(where, text) for text in error.args)) from None


def _option_problems(
    parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any], where: str
) -> Iterator[Problem]:
    for option, value in options.items():
        if option not in parameters:
            hint = suggest(option, parameters) if parameters else "there are none"
            yield Problem(f"{where}.{option}", f"is not an option of this decoder; {hint}")
        elif not isinstance(value, wanted := _plain_type(parameters[option].annotation)):
            yield Problem(f"{where}.{option}", f"expected {wanted.__name__}, got {type(value).__name__} {value!r}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            yield Problem(where, f"needs the option {option!r}")


def _plain_type(annotation: Any) -> type:
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    plain: type = get_origin(bare) or bare
    return plain


def _make_own(name: str, options: Mapping[str, Any], where: str) -> Decoder:
    try:
        found = load(name, FORMATS, DECODER_GROUP)
    except ValueError as error:
        raise SpecError(Problem(where, str(error))) from None
    if not callable(found):
        raise SpecError(Problem(where, f"{name} is a {type(found).__name__}, which cannot be called with a payload"))
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise SpecError(Problem(where, f"{name} is asynchronous; a decoder must be a plain function of the payload"))
    try:
        return _with_options(found, options)
    except Exception as error:
        raise SpecError(Problem(where, f"{name} cannot be made with these options: {shorten(error)}")) from None


def _with_options(found: Callable[..., Any], options: Mapping[str, Any]) -> Decoder:
    if inspect.isclass(found) and (options or any("__call__" in vars(base) for base in found.__mro__)):
        made = found(**options)
        if not callable(made):
            raise TypeError("its instances cannot be called with a payload")
        return made
    if not options:
        return found
    inspect.signature(found).bind(b"", **options)
    return partial(found, **options)


def _order_problems(specs: Sequence[Any], paths: Sequence[str]) -> Iterator[Problem]:
    names = [next(iter(spec)) if isinstance(spec, Mapping) and spec else spec for spec in specs]
    names = [name if isinstance(name, str) and name in FORMATS else None for name in names]
    for index in range(1, len(names)):
        before, name = names[index - 1], names[index]
        if name and before and before not in GIVES_BYTES:
            yield Problem(paths[index], f"{name} decodes bytes, but {before} before it does not return bytes")


def _memory_problems(stages: Sequence[_Stage | None], paths: Sequence[str]) -> Iterator[Problem]:
    remembering = [(stage.name, path) for stage, path in zip(stages, paths, strict=True) if stage and stage.remembers]
    for _, path in remembering[1:]:
        yield Problem(path, f"only one decoder of a pipeline may remember messages, and {remembering[0][0]} does too")


def _compose(stages: Sequence[_Stage]) -> OneDecoder:
    for index, stage in enumerate(stages):
        if stage.remembers is not None:
            before, after = stages[:index], stages[index + 1 :]
            return RememberingDecoder(
                stage.name,
                stage.remembers,
                _guard(stage) if stage.own else stage.decode,
                _chain(before) if before else None,
                _chain(after, after_own=stage.own) if after else None,
            )
    return _chain(stages)


def _chain(stages: Sequence[_Stage], *, after_own: bool = False) -> Decoder:
    """Join stages that only get payloads into one decoder; ``after_own``: a stage of the user's precedes them."""
    decoders = [_guard(stage) if stage.own else stage.decode for stage in stages]
    for index, stage in enumerate(stages):
        if not stage.own and (stages[index - 1].own if index else after_own):
            decoders[index] = _bytes_only(stage)
    return reduce(_join_stages, decoders)


def _join_stages(first: Decoder, second: Decoder) -> Decoder:
    return lambda payload: apply_stage(second, first(payload))


def _guard(stage: _Stage) -> Callable[..., Any]:
    """Wrap the user's decoder so that it raises only DecodeError, even while its generator runs."""
    name, decode = stage.name, stage.decode

    def guarded(*given: Any) -> Any:
        try:
            data = decode(*given)
        except DecodeError:
            raise
        except (Exception, SystemExit) as error:
            raise DecodeError(f"{name} fails with {_explain_fault(error)}") from error
        if type(data) is GeneratorType:
            return _guard_parts(name, data)
        check_depth(data)
        return data

    return guarded


def _guard_parts(name: str, parts: Iterator[Any]) -> Iterator[Any]:
    try:
        for part in parts:
            check_depth(part)
            yield part
    except DecodeError:
        raise
    except (Exception, SystemExit) as error:
        raise DecodeError(f"{name} fails with {_explain_fault(error)}") from error


def _explain_fault(error: BaseException) -> str:
    place = find_place(error)
    return f"{shorten(error)} ({place})" if place else shorten(error)


def _bytes_only(stage: _Stage) -> Decoder:
    def checked(payload: Any) -> Any:
        if not isinstance(payload, bytes):
            raise DecodeError(
                f"{stage.name} decodes bytes, but the stage before it returned a {type(payload).__name__}"
            )
        return stage.decode(payload)

    return checked
