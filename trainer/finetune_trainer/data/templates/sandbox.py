"""The sandbox of templates: Jinja without access to Python, with the names that Hugging Face's templates expect.

Options, filters and globals are those of transformers (`utils/chat_template_utils.py`), so a template renders the same
text as in transformers. There is one exception: `strftime_now` always gives the same date. With today's date rows would
differ from day to day, and a resumed run would differ from its first part. The date is the default in Llama 3's
templates.
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
"""The date of `strftime_now`."""

LARGEST_PRODUCT: Final = 1_000_000
"""Largest result of a multiplication or power: characters of a text, elements of a list, or bits of a number."""

OPEN, CLOSE = "\0(", "\0)"
"""The marks around the output of a `{% generation %}` block. They begin with NUL, and rows with a NUL are refused."""

REFUSALS: Final = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The errors of rendering: the template's own `raise_exception`, or a mistake in the template."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The Jinja environment of one template.

    Attributes:
        marked: whether the compiled template has `{% generation %}` blocks.
    """

    marked: bool = False
    intercepted_binops = frozenset({"*", "**"})
    """Operators whose result can be huge. One multiplication is a single bytecode, which no timer can interrupt."""

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals.pop("lipsum")
        self.globals |= {"raise_exception": _raise, "strftime_now": DAY.strftime, "namespace": _Namespace}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Jinja's hook for the operators in `intercepted_binops`.

        Raises:
            SecurityError: the result would be larger than `LARGEST_PRODUCT`.
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
        """Parses the template and does not compile it.

        Raises:
            ValueError: the template does not parse; the message says where and why.
        """
        with _says_where():
            self.parse(source)

    def compiled(self, source: str) -> Template:
        """The compiled template.

        Raises:
            ValueError: the template does not compile; the message says where and why.
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
    """The block `{% generation %}…{% endgeneration %}`, which marks the assistant's part: its tokens are trained."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        self.environment.marked = True  # type: ignore[attr-defined]
        return CallBlock(self.call_method("_enclosed"), [], [], body).set_lineno(line)

    def _enclosed(self, caller: Any) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


class _Namespace(Namespace):
    """Jinja's namespace without names that begin with `_`, which would give access to Python's internals."""

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
    """The filter `tojson` with plain JSON; Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
