"""Where a template runs: Jinja without access to Python, with the names that Hugging Face's templates expect.

Options, filters and globals are those of transformers (`utils/chat_template_utils.py`), so that a template renders
here what it renders there, with one exception: `strftime_now` always says the same day. Today's date would make rows,
and with them a resumed run, differ from day to day. The day is the one that Llama 3's templates fall back on.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

DAY: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""What `strftime_now` says."""

LARGEST_PRODUCT: Final = 1_000_000
"""Letters or elements of a text or list that is multiplied; bits of a number."""

OPEN, CLOSE = "\0(", "\0)"
"""Stand around what `{% generation %}` encloses. No row holds a NUL: the data is refused for one."""

REFUSALS: Final = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What rendering raises, be it the template's own `raise_exception` or a mistake in it."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template.

    Attributes:
        marked: whether the template that was compiled has `{% generation %}` marks.
    """

    marked: bool = False
    intercepted_binops = frozenset({"*", "**"})
    """What makes much out of little in one step, which no clock of this process can interrupt."""

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals.pop("lipsum")
        self.globals |= {"raise_exception": _raise, "strftime_now": DAY.strftime, "namespace": _Namespace}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Jinja's hook: a product, or a power, of no more than a conversation can need.

        Raises:
            SecurityError: it would be larger.
        """
        if operator == "**":
            size = _size(left) * right if isinstance(right, int) else 0
        elif isinstance(left, int) and isinstance(right, int):
            size = _size(left) + _size(right)
        else:
            count, of = (left, right) if isinstance(left, int) else (right, left)
            size = count * _size(of) if isinstance(count, int) else 0
        if size > LARGEST_PRODUCT:
            raise SecurityError(f"a product ({operator}) is larger than {LARGEST_PRODUCT:,}")
        return super().call_binop(context, operator, left, right)

    def parsed(self, source: str) -> None:
        """Parses the template.

        Raises:
            ValueError: it does not parse; the message says where and why.
        """
        with _says_where():
            self.parse(source)

    def compiled(self, source: str) -> Template:
        """The template.

        Raises:
            ValueError: it does not compile; the message says where and why.
        """
        with _says_where():
            return self.from_string(source)


@contextmanager
def _says_where() -> Iterator[None]:
    try:
        yield
    except TemplateSyntaxError as error:
        raise ValueError(f"does not compile: line {error.lineno}: {error.message}") from error
    except (RecursionError, SyntaxError) as error:
        raise ValueError("does not compile: it is nested too deeply") from error


class _Generation(Extension):
    """The block `{% generation %}…{% endgeneration %}`: the assistant's part, in which tokens are trained."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        self.environment.marked = True  # type: ignore[attr-defined]
        return CallBlock(self.call_method("_enclosed"), [], [], body).set_lineno(line)

    def _enclosed(self, caller: Any) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


class _Namespace(Namespace):
    """Jinja's namespace, without the names through which Python's internals are reached."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace takes no attribute {name!r}")
        super().__setitem__(name, value)


def _size(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else len(value) if hasattr(value, "__len__") else 1


def _raise(message: object) -> None:
    raise TemplateError(str(message))


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (templates pass it by position too)
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Plain JSON; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
