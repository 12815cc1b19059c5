"""Files as real users upload them, each with its expected problems.

A function makes each file, so that large files need no space in the repository. `Case.problems` are the problems that
the check of the data must report: (line, kind, a word of the message).
"""

import bz2
import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.data.problems import ProblemKind

Expected = tuple[int, ProblemKind, str]
GOOD = b'{"prompt": "2 + 2?", "completion": " 4"}\n'


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file with its expected problems."""

    name: str
    content: bytes
    rows: int = 0
    problems: tuple[Expected, ...] = ()
    file: str = "train.jsonl"
    blank: int = 0
    duplicates: int | None = None
    schema: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)


def _line(row: object, **options: Any) -> bytes:
    return json.dumps(row, **options).encode() + b"\n"


def _chat(*turns: tuple[str, object], **more: object) -> bytes:
    return _line({"messages": [{"role": role, "content": content} for role, content in turns], **more})


def _bad(name: str, line: bytes, kind: ProblemKind, word: str, **options: Any) -> Case:
    """Returns a case with a bad third line between good lines."""
    content = GOOD * 2 + line + (b"" if line.endswith(b"\n") else b"\n") + GOOD
    rows = options.pop("rows", 3 if kind in _UNPARSED else 4)
    return Case(name=name, content=content, rows=rows, problems=((3, kind, word),), **options)


_UNPARSED = {
    ProblemKind.JSON,
    ProblemKind.ENCODING,
    ProblemKind.NOT_OBJECT,
    ProblemKind.DUPLICATE_KEY,
    ProblemKind.TOO_LONG,
}
K = ProblemKind


def cases() -> Iterator[Case]:
    """Returns all cases."""
    yield from _whole()
    yield from _files()
    yield from _lines()
    yield from _values()
    yield from _conversations()
    yield from _shapes()
    yield from _likely()
    yield from _limits()


def _whole() -> Iterator[Case]:
    """Files without a problem."""
    yield Case(name="plain", content=GOOD * 3, rows=3, schema="promptCompletion")
    yield Case(name="one row", content=GOOD, rows=1)
    yield Case(name="no final newline", content=GOOD + GOOD[:-1], rows=2)
    yield Case(name="crlf", content=GOOD.replace(b"\n", b"\r\n") * 3, rows=3)
    yield Case(name="utf-8 bom", content=b"\xef\xbb\xbf" + GOOD, rows=1)
    yield Case(name="blank lines", content=b"\n" + GOOD + b" \t\n\r\n" + GOOD + b"\n\n", rows=2, blank=5)
    yield Case(name="indented", content=b"  " + GOOD, rows=1)
    separators = _line({"text": "a\u2028b\u2029c\u0085d"}, ensure_ascii=False)
    yield Case(name="u+2028 and others in a string", content=separators, rows=1, schema="text")
    exotic = _line({"text": "עברית \u200b 👩‍👩‍👧 e\u0301 \u202e"}, ensure_ascii=False)
    yield Case(name="rtl, zero width, emoji, combining", content=exotic, rows=1)
    yield Case(name="escaped surrogate pair", content=b'{"text": "\\ud83d\\ude00"}\n', rows=1)
    yield Case(name="gzip", content=gzip.compress(GOOD * 5), file="train.jsonl.gz", rows=5)
    yield Case(name="gzip without the name", content=gzip.compress(GOOD), rows=1)
    two = gzip.compress(GOOD) + gzip.compress(GOOD * 2)
    yield Case(name="gzip of several members", content=two, file="t.jsonl.gz", rows=3)
    yield Case(name="gzip with zero padding", content=gzip.compress(GOOD) + b"\0" * 512, file="t.gz", rows=1)
    yield Case(name="gz in the name only", content=GOOD, file="train.jsonl.gz", rows=1)
    yield Case(name="jsonl called txt", content=GOOD, file="train.txt", rows=1)
    yield Case(name="extra columns", content=_line({"id": 7, "text": "a", "meta": {"x": [None]}}), rows=1)
    yield Case(name="prompt that ends in a blank", content=_line({"prompt": "Q: ", "completion": "A"}), rows=1)
    huge = _line({"text": "x" * 3_000_000}) + _line({"text": "2 + 2? 4"})
    yield Case(name="a line of 3 MB", content=huge, rows=2)


def _files() -> Iterator[Case]:
    """Files of another kind: one problem for the file, not one per line."""
    yield Case(name="empty", content=b"", problems=((1, K.NO_ROWS, "holds no rows"),))
    yield Case(name="only blanks", content=b"\n \n\n", problems=((1, K.NO_ROWS, "3 blank lines"),), blank=3)
    empty = gzip.compress(b"")
    yield Case(name="gzip of nothing", content=empty, file="t.gz", problems=((1, K.NO_ROWS, "no rows"),))
    array = json.dumps([{"text": "a"}, {"text": "b"}]).encode()
    named: dict[str, Any] = {"format": "jsonl"}
    yield Case(name="json array", content=array, problems=((1, K.FILE, "jq -c '.[]'"),), spec=named)
    pretty = json.dumps({"text": "a"}, indent=2).encode() + b"\n"
    yield Case(name="pretty-printed", content=pretty * 3, problems=((1, K.FILE, "pretty-printed"),))
    page = b"<!DOCTYPE html><html><body>404</body></html>\n"
    yield Case(name="html page", content=page, problems=((1, K.FILE, "web page"),))
    error = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    yield Case(name="s3 error page", content=error, problems=((1, K.FILE, "web page or XML"),))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        content = (GOOD * 2).decode().encode(encoding)
        yield Case(name=encoding, content=content, problems=((1, K.ENCODING, encoding[:6].upper()),))
    parquet = b"PAR1" + bytes(range(256))
    yield Case(name="parquet", content=parquet, problems=((1, K.FILE, "a Parquet file"),), spec=named)
    pickled = pickle.dumps(["a"])
    yield Case(name="pickle", content=pickled, file="t.pkl", problems=((1, K.FILE, "dataset.format: pandas"),))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.jsonl", GOOD)
    yield Case(name="zip", content=archive.getvalue(), problems=((1, K.FILE, "zip"),))
    yield Case(name="bzip2", content=bz2.compress(GOOD), problems=((1, K.FILE, "bzip2"),))
    twice = gzip.compress(gzip.compress(GOOD))
    yield Case(name="gzip of gzip", content=twice, problems=((1, K.FILE, "inside compressed"),))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield Case(name="git lfs pointer", content=pointer, problems=((1, K.FILE, "LFS"),))
    cut = gzip.compress(b"".join(_line({"text": str(n)}) for n in range(9999)))[:-500]
    yield Case(name="gzip cut short", content=cut, rows=-1, problems=((-1, K.FILE, "cut short"),))
    damaged = bytearray(gzip.compress(GOOD * 50))
    damaged[-6] ^= 0xFF
    yield Case(name="gzip with a wrong checksum", content=bytes(damaged), rows=-1, problems=((-1, K.FILE, "damaged"),))
    junk = gzip.compress(GOOD) + b"junk after"
    yield Case(name="gzip with junk behind", content=junk, rows=1, problems=((2, K.FILE, "after the end"),))


def _lines() -> Iterator[Case]:
    """Lines that are no JSON object."""
    yield _bad("trailing comma", b'{"prompt": "a", "completion": "b",}', K.JSON, "remove the comma")
    yield _bad("comma between lines", b'{"prompt": "a", "completion": "b"},', K.JSON, "comma after the object")
    yield _bad("single quotes", b"{'prompt': 'a', 'completion': 'b'}", K.JSON, "double quotes")
    yield _bad("python values", b'{"prompt": "a", "completion": None}', K.JSON, "null, true and false")
    yield _bad("two objects", GOOD[:-1] + b" " + GOOD, K.JSON, "line of its own")
    yield _bad("bare CR between objects", GOOD[:-1] + b"\r" + GOOD, K.JSON, "bare CR")
    yield _bad("comment", b"// a comment", K.JSON, "no comments")
    yield _bad("hash comment", b"# a comment", K.JSON, "no comments")
    yield _bad("plain text", b"hello there", K.JSON, "'hello there' at column 1")
    yield _bad("object cut in the middle", b'{"prompt": "a", "compl', K.JSON, "not complete")
    yield _bad("raw tab in a string", b'{"prompt": "a\tb", "completion": "c"}', K.JSON, "control character")
    yield _bad("raw NUL", b'{"prompt": "a\0b", "completion": "c"}', K.JSON, "control character")
    yield _bad("single backslash", b'{"prompt": "C:\\dir", "completion": "c"}', K.JSON, "backslash")
    yield _bad("missing colon", b'{"prompt" "a"}', K.JSON, "column 11")
    yield _bad("bom in the middle", b"\xef\xbb\xbf" + GOOD, K.JSON, "byte order mark")
    yield _bad("list", b'["a", "b"]', K.NOT_OBJECT, "a list of 2")
    yield _bad("string", b'"text"', K.NOT_OBJECT, "the text 'text'")
    yield _bad("number", b"42", K.NOT_OBJECT, "the number 42")
    yield _bad("null", b"null", K.NOT_OBJECT, "null")
    yield _bad("NaN", b'{"prompt": "a", "completion": "b", "score": NaN}', K.JSON, "NaN")
    yield _bad("minus infinity", b'{"prompt": "a", "completion": "b", "score": -Infinity}', K.JSON, "-Infinity")
    yield _bad("deep nesting", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", K.JSON, "nested too deeply")
    yield _bad("huge integer", b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", K.JSON, "too long")
    yield _bad("repeated key", b'{"prompt": "a", "prompt": "b", "completion": "c"}', K.DUPLICATE_KEY, "twice")
    nested = b'{"prompt": "a", "completion": "c", "meta": {"x": 1, "x" : 2}}'
    yield _bad("repeated key below", nested, K.DUPLICATE_KEY, "twice")
    yield _bad("latin-1", '{"prompt": "caf\xe9", "completion": "b"}'.encode("latin-1"), K.ENCODING, "0xe9")
    yield _bad("bad utf-8", b'{"prompt": "a\xff", "completion": "b"}', K.ENCODING, "0xff")
    yield _bad("surrogate as utf-8", b'{"prompt": "\xed\xa0\x80", "completion": "b"}', K.ENCODING, "0xed")
    truncated = GOOD * 2 + GOOD[:25]
    yield Case(name="last line cut short", content=truncated, rows=2, problems=((3, K.JSON, "cut short"),))
    several = GOOD + b"x\n" + GOOD + b'{"prompt": 1, "completion": ""}\n'
    found: tuple[Expected, ...] = ((2, K.JSON, "'x'"), (4, K.TYPE, "the number 1"), (4, K.EMPTY, "completion"))
    yield Case(name="several problems", content=several, rows=3, problems=found)


def _values() -> Iterator[Case]:
    """Values that cannot be trained."""
    yield _bad("null", _line({"prompt": "a", "completion": None}), K.TYPE, "found null")
    yield _bad("number", _line({"prompt": 5, "completion": "b"}), K.TYPE, "the number 5")
    yield _bad("boolean", _line({"prompt": True, "completion": "b"}), K.TYPE, "found true")
    yield _bad("list", _line({"prompt": ["a"], "completion": "b"}), K.TYPE, "a list of 1")
    yield _bad("object", _line({"prompt": {"a": 1}, "completion": "b"}), K.TYPE, "an object with the keys a")
    yield _bad("empty text", _line({"prompt": "", "completion": "b"}), K.EMPTY, "prompt: found an empty text")
    yield _bad("blanks only", _line({"prompt": "a", "completion": " \n\t"}), K.EMPTY, "completion")
    yield _bad("lone surrogate", b'{"prompt": "a\\ud800", "completion": "b"}', K.CHARACTER, "\\ud800")
    yield _bad("escaped NUL", b'{"prompt": "a\\u0000", "completion": "b"}', K.CHARACTER, "U+0000")
    yield _bad("missing key", _line({"prompt": "a", "answer": "b"}), K.SCHEMA, "the key completion")
    nothing: tuple[Expected, ...] = ((2, K.SCHEMA, "the key prompt"), (2, K.SCHEMA, "the key completion"))
    yield Case(name="empty object", content=GOOD + b"{}\n", rows=2, problems=nothing)


def _conversations() -> Iterator[Case]:
    """Lists of messages."""
    good = _chat(("system", "s"), ("user", "u"), ("assistant", "a"))
    sharegpt = _line({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})
    yield Case(name="messages", content=good * 2, rows=2, schema="messages")
    yield Case(name="sharegpt", content=sharegpt * 2, rows=2, schema="sharegpt")
    yield Case(name="assistant first", content=_chat(("assistant", "a"), ("user", "u"), ("assistant", "b")), rows=1)
    yield Case(name="null text column beside", content=_chat(("user", "u"), ("assistant", "a"), text=None), rows=1)

    def bad(name: str, line: bytes, *problems: tuple[ProblemKind, str]) -> Case:
        found = tuple((2, kind, word) for kind, word in problems)
        return Case(name=name, content=good + line + good, rows=3, problems=found)

    yield bad("unknown role", _chat(("user", "u"), ("bot", "a"), ("assistant", "x")), (K.ROLE, "messages[1].role"))
    no_answer = _chat(("system", "s"), ("user", "u"))
    yield bad("no assistant", no_answer, (K.NO_ANSWER, "none of the assistant"))
    yield bad("no messages", _line({"messages": []}), (K.EMPTY, "a list of 0"))
    yield bad("messages is text", _line({"messages": "hello"}), (K.TYPE, "the text 'hello'"))
    yield bad("messages is null", _line({"messages": None}), (K.TYPE, "found null"))
    yield bad("a turn is text", _line({"messages": ["hi"]}), (K.TYPE, "messages[0]"), (K.NO_ANSWER, ""))
    null_content = _chat(("user", "u"), ("assistant", None), ("assistant", "a"))
    yield bad("null content", null_content, (K.TYPE, "messages[1].content: found null"))
    yield bad("empty content", _chat(("user", ""), ("assistant", "a")), (K.EMPTY, "messages[0].content"))
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}]
    thought = [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}]
    yield bad("thinking part", _chat(("user", "q"), ("assistant", thought)), (K.TYPE, "under reasoning_content"))
    yield bad("parts", _chat(("user", parts), ("assistant", "a")), (K.TYPE, "parts other than text"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    calls = _line({"messages": [{"role": "user", "content": "u"}, call, {"role": "assistant", "content": "a"}]})
    yield bad("tool calls", calls, (K.SCHEMA, "messages[1].tool_calls[0]: found an object"))
    yield bad("tools", _chat(("user", "u"), ("assistant", "a"), tools=[{"title": "f"}]), (K.SCHEMA, "tools[0]"))
    no_role = _line({"messages": [{"content": "u"}, {"role": "assistant", "content": "a"}]})
    yield bad("no role", no_role, (K.ROLE, "no role"))
    no_content = _line({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]})
    yield bad("no content", no_content, (K.SCHEMA, "messages[0].content"))
    unhashable = _chat(("user", "u"), ("assistant", "a")).replace(b'"role": "user"', b'"role": ["user"]')
    yield bad("role is a list", unhashable, (K.ROLE, "a list of 1"))


def _shapes() -> Iterator[Case]:
    """Columns, and which schema they mean."""
    alpaca = _line({"instruction": "i", "input": "", "output": "o"})
    yield Case(name="alpaca", content=alpaca * 2, rows=2, schema="alpaca")
    no_output = alpaca + _line({"instruction": "i", "input": 3, "output": "o"})
    yield Case(name="alpaca input", content=no_output, rows=2, problems=((2, K.TYPE, "input: found the number 3"),))
    nothing = alpaca + _line({"instruction": "i", "input": [], "output": "o"})
    yield Case(name="alpaca input []", content=nothing, rows=2, problems=((2, K.TYPE, "input: found a list of 0"),))
    unknown = _line({"question": "q", "answer": "a"})
    yield Case(name="unknown columns", content=unknown * 50, rows=1, problems=((1, K.SCHEMA, "keys question, answer"),))
    fields = {"prompt": "question", "completion": "answer"}
    mapped = {"fields": fields}
    yield Case(name="mapped columns", content=unknown, rows=1, schema="promptCompletion", spec=mapped)
    # A row with the columns of two schemas has the schema whose column dataset.fields names.
    body = _line({"prompt": "p", "completion": "c", "body": "b"})
    yield Case(name="mapped text", content=body, rows=1, schema="text", spec={"fields": {"text": "body"}})
    yield Case(
        name="mapped column is missing",
        content=GOOD,
        rows=1,
        problems=((1, K.SCHEMA, "expected body; dataset.fields must name"),),
        spec={"fields": {"text": "body"}},
    )
    turns = [{"speaker": "user", "says": "u"}, {"speaker": "assistant", "says": "a"}]
    spec = {"fields": {"messages": "dialogue", "role": "speaker", "content": "says"}, "schema": "messages"}
    yield Case(name="mapped messages", content=_line({"dialogue": turns}), rows=1, schema="messages", spec=spec)
    text = _line({"text": "t"})
    odd = text + GOOD * 3
    yield Case(
        name="odd first row",
        content=odd,
        rows=4,
        schema="promptCompletion",
        problems=((1, K.SCHEMA, "the key prompt"), (1, K.SCHEMA, "the key completion")),
    )
    named = {"schema": "text"}
    other = (1, K.SCHEMA, "the key text")
    yield Case(name="another schema named", content=GOOD, rows=1, schema="text", problems=(other,), spec=named)
    both = _line({"prompt": "p", "completion": "c", "text": "pc"})
    yield Case(name="two schemas at once", content=both, rows=1, schema="promptCompletion")
    yield Case(name="the one that is named", content=both, rows=1, schema="text", spec={"schema": "text"})


def _likely() -> Iterator[Case]:
    """Mistakes with a known remedy, which the message names."""

    def one(name: str, row: object, kind: K, word: str, **spec: Any) -> Case:
        return Case(name=name, content=_line(row), rows=1, problems=((1, kind, word),), spec=spec)

    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    yield one(
        "question and answer", {"question": "q", "answer": "a"}, K.SCHEMA, "{prompt: question, completion: answer}"
    )
    dolly = {"instruction": "i", "context": "c", "response": "r"}
    yield one("dolly", dolly, K.SCHEMA, "{instruction: instruction, input: context, output: response}")
    yield one("columns in capitals", {"Text": "t"}, K.SCHEMA, "{text: Text}")
    yield one("a turn a line", turns[0], K.SCHEMA, "put the list of turns under a key")
    yield one("only nulls", {"text": None}, K.SCHEMA, "without a value: text")
    yield one("turns as text", {"messages": json.dumps(turns)}, K.TYPE, "JSON inside a text")
    yield one(
        "role in capitals", {"messages": [turns[0], turns[1] | {"role": "Assistant"}]}, K.ROLE, "write 'assistant'"
    )
    speaker = [{"speaker": "user", "content": "u"}, turns[1]]
    yield one("role under another key", {"messages": speaker}, K.ROLE, "dataset.fields.role")
    begun = b'{"text": "a\nb"}\n' + _line({"text": "c"})
    broken = ((1, K.JSON, "not complete"), (2, K.JSON, "'b\"}'"))
    yield Case(name="line break inside the first text", content=begun, rows=1, problems=broken)
    unclosed = b'{"text": "a"\n' + _line({"text": "c"})
    yield Case(name="first object not closed", content=unclosed, rows=1, problems=((1, K.JSON, "not complete"),))
    tape = b"train.jsonl".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 248
    yield Case(name="tar", content=gzip.compress(tape), file="t.tar.gz", problems=((1, K.FILE, "a tar archive"),))
    office = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    yield Case(name="excel", content=office, file="t.csv", problems=((1, K.FILE, "export it as CSV"),))


def _limits() -> Iterator[Case]:
    """Files beyond dataset.limits, or with another dataset.sha256."""
    long_line = GOOD + _line({"prompt": "x" * 5000, "completion": "c"}) + GOOD
    spec = {"limits": {"maxLineBytes": 1024}}
    yield Case(name="line over the limit", content=long_line, rows=2, problems=((2, K.TOO_LONG, "1,024"),), spec=spec)
    rows = {"limits": {"maxRows": 3}}
    yield Case(name="too many rows", content=GOOD * 5, rows=4, problems=((4, K.LIMIT, "maxRows"),), spec=rows)
    size = {"limits": {"maxBytes": 50}}
    yield Case(name="too many bytes", content=GOOD * 5, rows=0, problems=((1, K.LIMIT, "maxBytes"),), spec=size)
    bomb = gzip.compress(b"0" * (64 << 20))
    over = (1, K.LIMIT, "maxCompressionRatio")
    yield Case(
        name="gzip bomb", content=bomb, file="t.gz", problems=(over,), spec={"limits": {"maxLineBytes": 1 << 30}}
    )
    other = {"sha256": "0" * 64}
    yield Case(name="another checksum", content=GOOD, rows=1, problems=((1, K.CHECKSUM, "SHA-256"),), spec=other)
