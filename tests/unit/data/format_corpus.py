"""Files of the other formats as real users upload them, each with its expected problems. See `corpus`."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from .corpus import Case, K

ROWS = [{"prompt": f"{n} + {n}?", "completion": f" {2 * n}, of course"} for n in range(5)]


def zstd(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return bytes(packed.getvalue())


def parquet(columns: dict[str, Any] | Any, **options: Any) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def format_cases() -> Iterator[Case]:
    """Returns all cases."""
    yield from _zstd()
    yield from _json()
    yield from _delimited()
    yield from _text()
    yield from _parquet()


def _zstd() -> Iterator[Case]:
    lines = b"".join(json.dumps({"text": f"row {n} {n * n}"}).encode() + b"\n" for n in range(2000))
    yield Case(name="zstd", content=zstd(lines), file="t.jsonl.zst", rows=2000)
    yield Case(name="zstd without the name", content=zstd(lines), rows=2000)
    yield Case(name="zstd of several frames", content=zstd(lines) * 3, file="t.jsonl.zst", rows=6000)
    cut = zstd(lines)[:-100]
    yield Case(name="zstd cut short", content=cut, rows=-1, problems=((-1, K.FILE, f"after byte {len(cut):,}"),))
    damaged = bytearray(zstd(lines))
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    yield Case(name="zstd damaged", content=bytes(damaged), rows=-1, problems=((-1, K.FILE, "damaged zstd"),))
    junk = zstd(lines) + b"junk after the end"
    yield Case(name="zstd with junk behind", content=junk, rows=-1, problems=((-1, K.FILE, "damaged zstd"),))
    bomb = zstd(b"0" * (64 << 20))
    yield Case(
        name="zstd bomb",
        content=bomb,
        problems=((1, K.LIMIT, "maxCompressionRatio"),),
        spec={"limits": {"maxLineBytes": 1 << 30}},
    )
    yield Case(name="zstd of gzip", content=zstd(gzip.compress(lines)), problems=((1, K.FILE, "inside compressed"),))


def _json() -> Iterator[Case]:
    array = json.dumps(ROWS)
    yield Case(name="json: array", content=array.encode(), file="t.json", rows=5, schema="promptCompletion")
    yield Case(name="json: array called jsonl", content=array.encode(), rows=5)
    yield Case(name="json: pretty", content=json.dumps(ROWS, indent=2).encode(), file="t.json", rows=5)
    yield Case(name="json: bom", content=b"\xef\xbb\xbf" + array.encode(), file="t.json", rows=5)
    yield Case(name="json: gzip", content=gzip.compress(array.encode()), file="t.json.gz", rows=5)
    yield Case(name="json: empty array", content=b"[]", file="t.json", problems=((1, K.NO_ROWS, "no rows"),))
    for key in ("data", "rows", "anything"):
        document = {"version": 1, "tags": ["a"], key: ROWS, "after": {"x": [1]}}
        yield Case(name=f"json: rows under {key}", content=json.dumps(document).encode(), file="t.json", rows=5)
        pretty = json.dumps(document, indent=1).encode()
        yield Case(name=f"json: pretty under {key}", content=pretty, file="t.json", rows=5)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    yield Case(name="json: really jsonl", content=lines, file="t.json", rows=5)
    chat = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
    one = json.dumps(chat).encode()
    yield Case(name="json: one row of messages", content=one, file="t.json", rows=1, schema="messages")
    named: dict[str, Any] = {"format": "json"}
    yield Case(name="json: named", content=array.encode(), file="rows", rows=5, spec=named)

    def bad(name: str, content: str | bytes, *problems: tuple[int, K, str], rows: int = -1) -> Case:
        data = content.encode() if isinstance(content, str) else content
        return Case(name=f"json: {name}", content=data, file="t.json", rows=rows, problems=problems, spec=named)

    good = json.dumps(ROWS[0])
    yield bad("not an object", f"[{good}, 7, {good}]", (2, K.NOT_OBJECT, "the number 7"), rows=2)
    yield bad("wrong type", f'[{good}, {{"prompt": 1, "completion": "c"}}]', (2, K.TYPE, "prompt: found the number"))
    twice = '{"prompt": "a", "prompt": "b", "completion": "c"}'
    yield bad("repeated key", f"[{twice}, {good}]", (1, K.DUPLICATE_KEY, "twice"), rows=1)
    yield bad("NaN", f'[{good}, {{"prompt": NaN}}, {good}]', (2, K.JSON, "NaN"), rows=2)
    yield bad("trailing comma", f"[{good},]", (2, K.JSON, f"']' at byte {len(good) + 3}, expected a row"), rows=1)
    yield bad("missing comma", f"[{good} {good}]", (2, K.JSON, "a comma or the array's end"), rows=1)
    yield bad("cut short", json.dumps(ROWS)[:-9], (5, K.JSON, "cut short"), rows=4)
    yield bad("cut between rows", f"[{good},", (2, K.JSON, "cut short"), rows=1)
    yield bad("more behind", f"[{good}] [{good}]", (2, K.JSON, "after the end of the document"), rows=1)
    yield bad("single quotes", f"[{good}, {{'a': 1}}]", (2, K.JSON, f"at byte {len(good) + 5}"), rows=1)
    latin = f"[{good}, ".encode() + b'{"prompt": "caf\xe9"}]'
    yield bad("latin-1", latin, (1, K.ENCODING, f"0xe9 at byte {latin.index(0xE9) + 1}"), rows=0)
    yield bad("deep nesting", f"[{good}, {'[' * 9999}", (2, K.JSON, "nested too deeply"), rows=1)
    yield bad("one object that is no row", '{"a": 1}', (1, K.FILE, "its keys: a"), rows=0)
    for indent in (None, 1):
        one = json.dumps(ROWS[0], indent=indent).encode()
        yield Case(name=f"json: one row, indent {indent}", content=one, file="t.json", rows=1, spec=named)
    yield bad("two lists", f'{{"a": [{good}], "b": [{good}]}}', (2, K.FILE, "two lists of rows, 'a' and 'b'"), rows=1)
    yield bad("text", '"hello"', (1, K.JSON, "a JSON array of rows"), rows=0)
    long_row = Case(
        name="json: row over the limit",
        content=json.dumps([ROWS[0], {"prompt": "x" * 5000, "completion": "c"}, ROWS[1]]).encode(),
        file="t.json",
        rows=2,
        problems=((2, K.TOO_LONG, "1,024 bytes"),),
        spec={"limits": {"maxLineBytes": 1024}},
    )
    yield long_row


def _delimited() -> Iterator[Case]:
    plain = b"prompt,completion\nq,a\nq2,a2\n"
    yield Case(name="csv", content=plain, file="t.csv", rows=2, schema="promptCompletion")
    yield Case(name="csv: crlf", content=plain.replace(b"\n", b"\r\n"), file="t.csv", rows=2)
    yield Case(name="csv: bom", content=b"\xef\xbb\xbf" + plain, file="t.csv", rows=2)
    yield Case(name="csv: no final newline", content=plain[:-1], file="t.csv", rows=2)
    yield Case(name="csv: gzip", content=gzip.compress(plain), file="t.csv.gz", rows=2)
    yield Case(name="csv: zstd", content=zstd(plain), file="t.csv.zst", rows=2)
    yield Case(name="csv: blank lines", content=b"\n" + plain + b"\n", file="t.csv", rows=2, blank=2)
    yield Case(name="csv: named", content=plain, file="rows", rows=2, spec={"format": "csv"})
    index = b",prompt,completion\n0,q,a\n1,q2,a2\n"
    yield Case(name="csv: the index that pandas writes", content=index, file="t.csv", rows=2)
    alpaca = b"instruction,input,output\ndo,,done\n"
    yield Case(name="csv: empty field that may be", content=alpaca, file="t.csv", rows=1, schema="alpaca")
    mapped = {"fields": {"prompt": "question", "completion": "answer"}}
    yield Case(name="csv: mapped", content=b"id,question,answer\n1,q,a\n", file="t.csv", rows=1, spec=mapped)
    turns = b'messages\n"[{""role"": ""user"", ""content"": ""x""}]"\n'
    as_text = ((1, K.TYPE, "messages: found a column of text"),)
    yield Case(name="csv: messages", content=turns + b"x\n" * 50, file="t.csv", problems=as_text)
    lacks = ((1, K.SCHEMA, "text: found the columns prompt, completion"),)
    yield Case(name="csv: column is missing", content=plain, file="t.csv", problems=lacks, spec={"schema": "text"})
    long_field = b"prompt,completion\nq," + b"x" * 300_000 + b"\n"
    yield Case(name="csv: field over the parser's own limit", content=long_field, file="t.csv", rows=1)
    quoted = b'prompt,completion\n"a ""b"", c","1\n2\n3"\n'
    yield Case(name="csv: quotes and line breaks", content=quoted, file="t.csv", rows=1)
    yield Case(name="tsv", content=plain.replace(b",", b"\t"), file="t.tsv", rows=2, schema="promptCompletion")

    def bad(name: str, content: bytes, *problems: tuple[int, K, str], rows: int = -1, **more: Any) -> Case:
        return Case(name=f"csv: {name}", content=content, rows=rows, problems=problems, **{"file": "t.csv", **more})

    # The physical line on which the record begins.
    yield bad("line after line breaks", quoted + b"q,\n", (5, K.EMPTY, "completion: found an empty text"), rows=2)
    yield bad("too few fields", quoted + b"q\n" + b"q,a\n", (5, K.CSV, "1 field, the last 'q'"), rows=2)
    yield bad("too many fields", plain + b"q,a,b\n", (4, K.CSV, "expected 2"), rows=2)
    yield bad("header inside", plain * 2, (4, K.CSV, "the header again"), rows=4)
    yield bad("quote not closed", plain + b'"q,a\nq,a\n', (4, K.CSV, "never closed"), rows=2)
    yield bad("quote inside a quoted field", plain + b'"a"b,c\nq,a\n', (4, K.CSV, "in the middle"), rows=3)
    spec: dict[str, Any] = {"limits": {"maxLineBytes": 1024}}
    runaway = plain + b'"q,a\n' + b"q,a\n" * 1000
    yield bad("quote not closed in a large file", runaway, (4, K.TOO_LONG, "never closed"), rows=2, spec=spec)
    long_line = plain + b"q," + b"x" * 2000 + b"\nq,a\n"
    yield bad("line over the limit", long_line, (4, K.TOO_LONG, "1,024"), rows=3, spec=spec)
    yield bad("semicolons", plain.replace(b",", b";"), (1, K.CSV, "a semicolon in its name"), rows=0)
    yield bad("tabs", plain.replace(b",", b"\t"), (1, K.CSV, "dataset.format: tsv"), rows=0)
    yield bad("commas in a tsv", plain, (1, K.CSV, "dataset.format: csv"), rows=0, file="t.tsv")
    yield bad("column twice", b"prompt,prompt\nq,a\n", (1, K.CSV, "the column 'prompt' twice"), rows=0)
    yield bad("column without a name", b"prompt,,completion\nq,x,a\n", (1, K.CSV, "no name for column 2"), rows=0)
    yield bad("no header", b"what is it?,a thing\nq,a\n", (2, K.SCHEMA, "keys what is it?, a thing"), rows=1)
    yield bad("jsonl named csv", b'{"text": "a"}\n', (1, K.CSV, "found JSON"), rows=0, spec={"format": "csv"})
    yield bad("latin-1", plain + b"caf\xe9,a\nq,a\n", (4, K.ENCODING, "0xe9"), rows=3)
    yield bad("utf-16", plain.decode().encode("utf-16"), (1, K.ENCODING, "UTF-16"), rows=0)
    yield bad("nul", plain + b"q\0,a\n", (4, K.CHARACTER, "U+0000"), rows=3)
    yield bad("old mac line ends", plain.replace(b"\n", b"\r"), (1, K.CSV, "bare CR"), rows=0)
    yield bad("only a header", b"prompt,completion\n", (1, K.NO_ROWS, "18 bytes"), rows=0)
    yield bad("empty", b"", (1, K.NO_ROWS, "0 bytes"), rows=0)
    page = b"<!DOCTYPE html><html><body>404</body></html>\n"
    yield bad("web page", page, (1, K.FILE, "web page"), rows=0)
    yield bad("not packed as its name says", b"prompt;x\n", (1, K.CSV, "a semicolon"), rows=0, file="t.csv.gz")


def _text() -> Iterator[Case]:
    text = b"<s>[INST] one [/INST] two</s>\n\n  \r\nanother row\r\nlast"
    yield Case(name="text", content=text, file="t.txt", rows=3, blank=2, schema="text")
    yield Case(name="text: zstd", content=zstd(text), file="t.txt.zst", rows=3, blank=2)
    yield Case(name="text: a bracket first", content=b"[INST] a\n", file="t.txt", rows=1)
    yield Case(name="text: named", content=b"a\nb\n", file="rows", rows=2, spec={"format": "text"})
    mapped = {"fields": {"text": "body"}}
    yield Case(name="text: the column has the mapped name", content=b"a\n", file="t.txt", rows=1, spec=mapped)
    yield Case(name="text: latin-1", content=b"a\ncaf\xe9\n", file="t.txt", rows=1, problems=((2, K.ENCODING, "0xe9"),))
    page = b"<html><body>404</body></html>\n"
    yield Case(name="text: web page", content=page, file="t.txt", problems=((1, K.FILE, "web page"),))
    limit = {"limits": {"maxLineBytes": 1024}}
    long_line = b"a\n" + b"x" * 2000 + b"\nb\n"
    yield Case(
        name="text: long line",
        content=long_line,
        file="t.txt",
        rows=2,
        problems=((2, K.TOO_LONG, "1,024"),),
        spec=limit,
    )
    other = (1, K.SCHEMA, "the key prompt"), (1, K.SCHEMA, "the key completion")
    named = {"schema": "promptCompletion"}
    yield Case(name="text: another schema", content=b"a\n", file="t.txt", rows=1, problems=other, spec=named)


def _parquet() -> Iterator[Case]:
    prompts = {"prompt": [row["prompt"] for row in ROWS], "completion": [row["completion"] for row in ROWS]}
    more = prompts | {"id": list(range(5)), "vector": [[0.5] * 9] * 5}
    plain = parquet(more)
    yield Case(name="parquet", content=plain, file="t.parquet", rows=5, schema="promptCompletion")
    yield Case(name="parquet without the name", content=plain, file="part-0", rows=5)
    yield Case(name="parquet named", content=plain, file="t", rows=5, spec={"format": "parquet"})
    many = parquet({"text": [f"row {n}" for n in range(1000)]}, row_group_size=70, compression="zstd")
    yield Case(name="parquet: row groups", content=many, file="t.parquet", rows=1000, schema="text")
    chat: list[dict[str, Any]] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "name": None}]
    tables = {
        "list of struct": pa.table({"messages": [chat] * 3}),
        "list of map": pa.table(
            {"messages": [[list(turn.items())[:2] for turn in chat]] * 3},
            pa.schema({"messages": pa.list_(pa.map_(pa.string(), pa.string()))}),
        ),
        "large": pa.table(
            {"messages": [chat] * 3},
            pa.schema(
                {"messages": pa.large_list(pa.struct({"role": pa.large_string(), "content": pa.large_string()}))}
            ),
        ),
    }
    for name, table in tables.items():
        content = parquet(table)
        yield Case(name=f"parquet: {name}", content=content, file="t.parquet", rows=3, schema="messages")
    words = pa.array(["a", "b", "a"])
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        content = parquet({"text": words.cast(kind)})
        yield Case(name=f"parquet: {kind}", content=content, file="t.parquet", rows=3, schema="text")
    alpaca = parquet({"instruction": ["i", "j"], "input": [None, ""], "output": ["o", "p"]})
    yield Case(name="parquet: null that may be", content=alpaca, file="t.parquet", rows=2, schema="alpaca")

    def bad(name: str, content: bytes, *problems: tuple[int, K, str], rows: int = 0, **more: Any) -> Case:
        return Case(name=f"parquet: {name}", content=content, rows=rows, problems=problems, **{"file": "t.pq", **more})

    null = parquet({"text": ["a"] * 99 + [None]})
    yield bad("null", null, (100, K.TYPE, "t.pq row 100 text: found null"), rows=100)
    yield bad("numbers", parquet({"text": [1, 2]}), (1, K.TYPE, "text: found a column of int64"))
    yield bad("binary", parquet({"text": [b"abc"]}), (1, K.TYPE, "text: found a column of binary"))
    both = parquet({"prompt": [1.5, 2.5], "completion": [True, False]})
    yield bad("two wrong types", both, (1, K.TYPE, "prompt: found a column of double"), (1, K.TYPE, "of bool"))
    unused = parquet({"prompt": ["a"], "completion": ["b"], "text": [1], "messages": ["c"]})
    yield bad("wrong types of columns that are not read", unused, (1, K.TYPE, "messages: found a column of string"))
    named = {"schema": "promptCompletion"}
    yield Case(name="parquet: others of other types", content=unused, file="t.pq", rows=1, spec=named)
    of_input = parquet({"instruction": ["i"] * 9, "input": list(range(9)), "output": ["o"] * 9})
    yield bad("number as input", of_input, (1, K.TYPE, "input: found a column of int64"))
    no_input = parquet({"instruction": ["i"], "input": pa.nulls(1), "output": ["o"]})
    yield Case(name="parquet: input without values", content=no_input, file="t.pq", rows=1, schema="alpaca")
    as_text = parquet({"messages": [json.dumps(chat)] * 9})
    yield bad("messages as text", as_text, (1, K.TYPE, "json.loads before writing"))
    coded = parquet({"messages": [[{"role": 0, "content": "u"}, {"role": 1, "content": "a"}]] * 9})
    yield bad("roles as numbers", coded, (1, K.TYPE, "messages[].role: found a column of int64"))
    named = {"schema": "messages"}
    other = parquet({"messages": [[{"role": "user", "text": "u"}]] * 9})
    yield bad("content under another key", other, (1, K.SCHEMA, "messages[].content: found the columns role, text"))
    yield bad("no messages", plain, (1, K.SCHEMA, "expected the column messages"), spec=named)
    latin = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 1, 5, 6], pa.int32()).buffers()[1], pa.py_buffer(b"acaf\xe9b")]
    )
    yield bad("latin-1", parquet({"text": latin}), (2, K.ENCODING, "text: found the byte 0xe9"), rows=2)
    turns = [[{"role": "user", "content": "u"}, {"role": "bot", "content": "x"}, chat[1]]]
    yield bad("role", parquet({"messages": turns}), (1, K.ROLE, "messages[1].role: found the text 'bot'"), rows=1)
    question = parquet({"question": ["q"], "answer": ["a"]})
    yield bad("unknown columns", question, (1, K.SCHEMA, "the keys question, answer"), rows=1)
    twice = parquet(pa.Table.from_arrays([words, words], names=["text", "text"]))
    yield bad("column twice", twice, (1, K.SCHEMA, "the column 'text' twice"))
    yield bad("cut short", plain[:-20], (1, K.FILE, "cut short"))
    yield bad("only its beginning", plain[:4], (1, K.FILE, "t.pq"))
    damaged = bytearray(many)
    damaged[len(many) // 3] ^= 0xFF
    yield bad("damaged", bytes(damaged), (-1, K.FILE, "damaged Parquet data"), rows=-1)
    yield bad("encrypted", b"PARE" + plain[4:-4] + b"PARE", (1, K.FILE, "encrypted"))
    yield bad("packed", gzip.compress(plain), (1, K.FILE, "compresses its columns itself"), file="t.parquet.gz")
    yield bad("a web page", b"<!DOCTYPE html><html></html>", (1, K.FILE, "web page"))
    yield bad("text", b"prompt,completion\nq,a\n", (1, K.FILE, "no Parquet footer"))
    yield bad("empty", b"", (1, K.FILE, "t.pq"))
    limit: dict[str, Any] = {"limits": {"maxLineBytes": 1024}}
    long_row = parquet({"text": ["a", "x" * 2000, "b"]})
    yield bad("row over the limit", long_row, (2, K.TOO_LONG, "a row of 2,000 bytes"), rows=2, spec=limit)
    yield bad("too many rows", many, (51, K.LIMIT, "maxRows"), rows=51, spec={"limits": {"maxRows": 50}})
    yield bad("too many bytes", many, (65, K.LIMIT, "maxBytes"), rows=64, spec={"limits": {"maxBytes": 1000}})
    bomb = parquet({"text": ["x" * (1 << 20)] * 64}, use_dictionary=False, compression="zstd")
    yield bad("bomb", bomb, (1, K.LIMIT, "maxCompressionRatio"))
    yield bad("no rows", parquet({"text": pa.array([], pa.string())}), (1, K.NO_ROWS, "no rows"))
