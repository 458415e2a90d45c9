"""How a stage declares its options, once, for the command line, for YAML and for notebooks.

A stage's options are one frozen dataclass.  Each field is made by :func:`argument`
(positional on the command line) or :func:`option`; the command line, the YAML reader and the
documentation are derived from the dataclass, so an option is written exactly once.

Two class variables tell ``debugnet run`` how stages fit together::

    class FitPath:
        produces: ClassVar[str] = "path.h5"  # its artefact's name in a run folder; kind "path"
        features: Path = argument("feature file (features.h5)")

An input that is not given takes the artefact of its kind that an earlier stage made; the kind
is the field's name unless ``kind=`` says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


def argument(
    help: str, *, default: Any = dataclasses.MISSING, kind: str | None = None, choices: Sequence[str] = ()
) -> Any:
    """Declare a positional input (a path to an artefact, or ``-`` to read it from stdin).

    Parameters
    ----------
    help : str
        One line for ``--help``.
    default : object, optional
        Without it the input is required.
    kind : str, optional
        The kind of artefact it is, where the field's name does not say it ("path|sparse": either).
    choices : sequence of str
        Closed set of values.
    """
    metadata = {"positional": True, "help": help, "kind": kind, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def option(
    default: Any,
    help: str,
    *,
    flags: Sequence[str] = (),
    choices: Sequence[str] = (),
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    in_key: bool = True,
    group: str = "Options",
    kind: str | None = None,
    multiple: bool = False,
) -> Any:
    """Declare an option.

    Parameters
    ----------
    default : object
        Value when the option is not given; None means "decided by the stage", and
        ``dataclasses.MISSING`` that it must be given.
    help : str
        One line for ``--help``, with the unit.
    flags : sequence of str
        Flags beside ``--field-name``; a long one replaces it (for example ``("-o", "--output")``).
    choices : sequence of str
        Closed set of values, checked for the command line and for YAML alike.
    parse : callable, optional
        Turns the text typed by the user into the value ("5%" -> 0.05); YAML scalars go
        through it too.  Raises ValueError with a message on bad text.
    metavar : str, optional
        Placeholder shown in help.
    in_key : bool
        False for options that cannot change the result (workers, device, output path): they
        are recorded, but a change does not make an artefact out of date.
    group : str
        Heading under which ``--help`` lists it.
    kind : str, optional
        The kind of artefact it takes: in a recipe it defaults to an earlier stage's.
    multiple : bool
        A tuple-valued option whose flag may be repeated, each value kept whole.  Other
        tuple-valued options take one comma-separated value.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "flags": tuple(flags),
            "choices": tuple(choices),
            "parse": parse,
            "metavar": metavar,
            "in_key": in_key,
            "group": group,
            "kind": kind,
            "multiple": multiple,
        },
    )
