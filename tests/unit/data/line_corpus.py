"""More files of lines: unusual beginnings, boundaries of read buffers, and hostile text. See `corpus`."""

import gzip
from collections.abc import Iterator

from .corpus import GOOD, Case, K, _chat, _line

_BAD = b'{"prompt": 1, "completion": "c"}\n'
_BAD_TEXT = "prompt: found the number 1"
_MIB = 1 << 20


def line_cases() -> Iterator[Case]:
    """Returns all cases."""
    yield from _places()
    yield from _borders()
    yield from _hostile()
    yield from _many()


def _places() -> Iterator[Case]:
    """The number of the bad line is right, whatever comes before it."""
    bad = ((3, K.TYPE, _BAD_TEXT),)
    yield Case(name="bad line after crlf", content=GOOD.replace(b"\n", b"\r\n") * 2 + _BAD, rows=3, problems=bad)
    yield Case(name="bad line after a bom", content=b"\xef\xbb\xbf" + GOOD * 2 + _BAD, rows=3, problems=bad)
    yield Case(name="bad line after blanks", content=GOOD + b" \r\n" + _BAD, rows=2, blank=1, problems=bad)
    wide = '{"prompt": "日本語 👍", "completion": "é"}\n'.encode()
    yield Case(name="bad line after wide characters", content=wide * 2 + _BAD, rows=3, problems=bad)
    odd = _line({"prompt": "a\u2028b\u0085c", "completion": "d"}, ensure_ascii=False)
    yield Case(name="bad line after u+2028", content=odd * 2 + _BAD, rows=3, problems=bad)
    packed = gzip.compress(GOOD * 2 + _BAD + GOOD)
    yield Case(name="bad line in gzip", content=packed, file="t.jsonl.gz", rows=4, problems=bad)
    members = gzip.compress(GOOD * 2) + gzip.compress(_BAD)
    yield Case(name="bad line in the second member", content=members, file="t.gz", rows=3, problems=bad)
    torn = gzip.compress(GOOD + GOOD[:10]) + gzip.compress(GOOD[10:] + _BAD)
    yield Case(name="line over two members", content=torn, file="t.gz", rows=3, problems=bad)
    yield Case(name="bad first line", content=_BAD + GOOD, rows=2, problems=((1, K.TYPE, _BAD_TEXT),))
    yield Case(name="bad last line without end", content=GOOD + _BAD[:-1], rows=2, problems=((2, K.TYPE, _BAD_TEXT),))
    far = ((7001, K.TYPE, _BAD_TEXT),)
    yield Case(name="bad line far down", content=GOOD * 7000 + _BAD + GOOD, rows=7002, problems=far)
    cut = GOOD * 2 + '{"prompt": "日'.encode()[:-1]
    yield Case(name="cut inside a character", content=cut, rows=2, problems=((3, K.ENCODING, "0xe6"),))


def _borders() -> Iterator[Case]:
    """Files are read in blocks of one mebibyte. A boundary of blocks changes nothing."""
    for shift in (-1, 0, 1):
        text = "x" * (_MIB - len(b'{"text": ""}\n') + shift)
        rest = _line({"text": "b"}) + b'{"text": 5}\n'
        name = f"line end {shift:+} bytes from the border"
        found = ((3, K.TYPE, "text: found the number 5"),)
        yield Case(name=name, content=_line({"text": text}) + rest, rows=3, problems=found)
    for shift in range(4):
        text = "x" * (_MIB - len(b'{"text": "') - shift) + "👍é"
        yield Case(
            name=f"character {shift} bytes before the border", content=_line({"text": text}, ensure_ascii=False), rows=1
        )
    limit = {"limits": {"maxLineBytes": 1024}}
    for length, over in ((1024, False), (1025, True)):
        row = _line({"text": "x" * (length - len(b'{"text": ""}'))})
        found_long = ((1, K.TOO_LONG, "1,024"),) if over else ()
        more = _line({"text": "b"})
        rows = 1 if over else 2
        yield Case(name=f"line of {length} bytes", content=row + more, rows=rows, problems=found_long, spec=limit)
    endless = b'{"text": "' + b"x" * (3 * _MIB)
    found_endless = ((2, K.TOO_LONG, "maxLineBytes"),)
    yield Case(
        name="a line without end", content=_line({"text": "a"}) + endless, rows=1, problems=found_endless, spec=limit
    )


def _hostile() -> Iterator[Case]:
    """Text that could change a terminal, a log or a message."""

    def bad(name: str, line: bytes, kind: K, word: str, rows: int = 2) -> Case:
        return Case(name=name, content=GOOD + line + b"\n", rows=rows, problems=((2, kind, word),))

    escape = b"\\u001b[2J"
    twice = b'{"' + escape + b'": 1, "' + escape + b'": 2}'
    yield bad("terminal escape in a repeated key", twice, K.DUPLICATE_KEY, r"\x1b[2J", rows=1)
    half = b'{"\\ud800": 1, "\\ud800": 2}'
    yield bad("half a surrogate pair in a repeated key", half, K.DUPLICATE_KEY, r"\ud800", rows=1)
    newline = b'{"a\\nb": 1, "a\\nb": 2}'
    yield bad("line break in a repeated key", newline, K.DUPLICATE_KEY, r"a\nb", rows=1)
    turned = '{"\u202ekey": 1, "\u202ekey": 2}'.encode()
    yield bad("right-to-left override in a repeated key", turned, K.DUPLICATE_KEY, r"\u202ekey", rows=1)
    in_object = b'{"prompt": {"' + escape + b'": 1}, "completion": "c"}'
    yield bad("terminal escape in a key", in_object, K.TYPE, r"keys \x1b[2J")
    raw = b'{"prompt": "a", "completion": \x1b[2J}'
    yield bad("raw terminal escape", raw, K.JSON, r"'\x1b[2J}'", rows=1)
    long_key = b'{"' + b"k" * 5000 + b'": 1, "' + b"k" * 5000 + b'": 2}'
    yield bad("long repeated key", long_key, K.DUPLICATE_KEY, "k…", rows=1)
    long_value = _line({"prompt": ["x" * 9000] * 3, "completion": "c"})[:-1]
    yield bad("long list", long_value, K.TYPE, "a list of 3")
    yield bad("long number", b'{"prompt": ' + b"9" * 400 + b', "completion": "c"}', K.TYPE, "with many digits")
    yield bad("exponent over a double", b'{"prompt": 1e999, "completion": "c"}', K.TYPE, "the number inf")
    objects = b'{"prompt": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b', "completion": "c"}'
    yield bad("nested objects", objects, K.TYPE, "an object with the keys a")
    yield bad("only an opening bracket", b"{", K.JSON, "not complete", rows=1)
    yield bad("only a quote", b'"', K.JSON, "not complete", rows=1)
    yield bad("vertical tab outside", b"\x0b" + GOOD[:-1], K.JSON, r"'\x0b", rows=1)
    yield bad("no-break space outside", b"\xc2\xa0" + GOOD[:-1], K.JSON, r"\xa0", rows=1)
    yield bad("over-long utf-8", b'{"prompt": "\xc0\xaf", "completion": "c"}', K.ENCODING, "0xc0", rows=1)
    yield bad("character over u+10ffff", b'{"prompt": "\xf4\x90\x80\x80"}', K.ENCODING, "0xf4", rows=1)
    yield bad("low surrogate alone", b'{"prompt": "\\udc00", "completion": "c"}', K.CHARACTER, "\\udc00")
    swapped = b'{"prompt": "\\udc00\\ud800", "completion": "c"}'
    yield bad("surrogates the wrong way round", swapped, K.CHARACTER, "\\udc00")
    yield bad("invalid escape", b'{"prompt": "\\x41", "completion": "c"}', K.JSON, "backslash", rows=1)
    yield bad("cut escape", b'{"prompt": "\\u00", "completion": "c"}', K.JSON, "column", rows=1)
    yield bad("leading zero", b'{"prompt": 007, "completion": "c"}', K.JSON, "column", rows=1)
    yield bad("key without quotes", b'{prompt: "a", completion: "c"}', K.JSON, "column 2", rows=1)
    yield bad("typographic quotes", "{“prompt”: “a”}".encode(), K.JSON, "column 2", rows=1)
    yield bad("two commas", b'{"prompt": "a",, "completion": "c"}', K.JSON, "column", rows=1)


def _many() -> Iterator[Case]:
    """Several problems in one file, and duplicate rows."""
    turns = [("user", "u"), ("assistant", "")]
    bad = _chat(*turns, ("critic", "c"), ("assistant", None))
    good = _chat(("user", "u"), ("assistant", "a"))
    found = (
        (2, K.EMPTY, "messages[1].content"),
        (2, K.ROLE, "messages[2].role"),
        (2, K.TYPE, "messages[3].content"),
    )
    yield Case(name="every turn that is wrong", content=good + bad, rows=2, problems=found)
    mixed = good + GOOD + good
    absent = ((2, K.SCHEMA, "the key messages"),)
    yield Case(name="rows of two schemas", content=mixed, rows=3, schema="messages", problems=absent)
    yield Case(
        name="the same row again", content=GOOD * 4 + _line({"prompt": "x", "completion": "y"}), rows=5, duplicates=3
    )
    ids = b"".join(_line({"id": n, "prompt": "p", "completion": "c"}) for n in range(4))
    yield Case(name="the same row under other ids", content=ids, rows=4, duplicates=3)
    blanks = _line({"prompt": "p", "completion": "c"}) + _line({"prompt": "p", "completion": "c "})
    yield Case(name="nearly the same row", content=blanks, rows=2, duplicates=0)
