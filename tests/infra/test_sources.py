import gzip
import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from alignment.errors import UserError
from alignment.types import Dropped
from infra.sources import read_pairs, read_prompts

ROWS = [{"prompt": "One", "level": 1}, {"prompt": "Two", "preference": "Be brief.", "level": 2}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_jsonl(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def write_parquet(path, rows):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    "name", ["p.jsonl", "p.ndjson", "p.json", "p.jsonl.gz", "p.json.gz", "p.parquet", "lines.json"]
)
def test_prompts_are_the_same_from_every_file_type(tmp_path, name):
    path = tmp_path / name
    if name == "p.parquet":
        write_parquet(path, [{"preference": None, **row} for row in ROWS])
    else:
        content = json.dumps(ROWS, indent=1).encode() if name.startswith("p.json") and "jsonl" not in name else LINES
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    read = read_prompts(str(path))
    assert [(p.messages[0].content, p.preference, p.metadata["level"]) for p in read.prompts] == [
        ("One", None, 1),
        ("Two", "Be brief.", 2),
    ]
    assert (read.format, read.dropped) == ("prompt (text); metadata: level", ())


def test_prompts_are_read_from_any_address():
    with fsspec.open("memory://sources/p.jsonl", "wb") as file:
        file.write(LINES)
    assert len(read_prompts("memory://sources/p.jsonl").prompts) == 2


def test_prompts_are_read_over_http(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(LINES)
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert len(read_prompts(f"{address}/p.jsonl").prompts) == 2
        with pytest.raises(UserError, match=r"q\.jsonl cannot be read: "):
            read_prompts(f"{address}/q.jsonl")
        server.shutdown()


def test_line_breaks_inside_text_do_not_break_rows(tmp_path):
    """U+2028 and U+0085 are line breaks to str.splitlines and may stand unescaped in JSON."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one\u2028two\u0085three"}\r\n\n{"prompt": "Two"}', encoding="utf-8")
    assert [p.messages[0].content for p in read_prompts(str(path)).prompts] == ["one\u2028two\u0085three", "Two"]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES)
    assert len(read_prompts(str(path)).prompts) == 2


def test_only_the_first_rows_up_to_the_limit_are_read(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *ROWS, "{broken")
    assert len(read_prompts(path, limit=2).prompts) == 2


def test_of_equal_prompts_the_first_is_kept_and_the_others_name_it(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", {"prompt": "One", "a": 1}, {"prompt": "Two"}, {"prompt": "One", "a": 2})
    read = read_prompts(path)
    assert [dict(p.metadata) for p in read.prompts] == [{"a": 1}, {}]
    assert read.dropped == (Dropped(step="prompts", item=f"{path}: line 3", reason="the same prompt as line 1"),)


BAD = [
    ("{broken", "malformed JSON: Expecting property name"),
    ({"question": "One"}, "no 'prompt'"),
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": None}, "prompt is null, expected text"),
    ("[1]", "it is a list, expected an object with named fields"),
    ('{"prompt": NaN}', "prompt is NaN, expected text"),
    ('{"prompt": "x", "score": 1e999}', "score holds what JSON and UTF-8 cannot"),
    ('{"prompt": "x", "note": "\\ud800"}', "note holds what JSON and UTF-8 cannot"),
    ("[" * 100_000, "malformed JSON: "),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_named_by_file_and_line_and_how_to_go_on(tmp_path, row, reason):
    path = write_jsonl(tmp_path / "p.jsonl", ROWS[0], "", row, ROWS[1])
    with pytest.raises(UserError, match=re.escape(f"{path}: line 3: {reason}")) as refused:
        read_prompts(path)
    assert "only bad row of 3: mend the file, or drop them with --skip-bad-rows" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_skipped_bad_row_is_dropped_with_the_same_reason(tmp_path, row, reason):
    path = write_jsonl(tmp_path / "p.jsonl", ROWS[0], row, ROWS[1])
    read = read_prompts(path, skip_bad_rows=True)
    assert len(read.prompts) == 2
    assert [(d.item, d.reason.startswith(reason)) for d in read.dropped] == [(f"{path}: line 2", True)]


def test_a_line_that_is_not_utf_8_names_the_byte(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(LINES + '{"prompt": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match="line 3: not UTF-8: byte 0xe9 at place 16"):
        read_prompts(str(path))
    assert len(read_prompts(str(path), skip_bad_rows=True).prompts) == 2


def test_rows_of_json_lists_and_parquet_are_named_by_their_number(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([ROWS[0], {"prompt": ""}]))
    write_parquet(tmp_path / "p.parquet", [{"prompt": "One", "score": 1.0}, {"prompt": "Two", "score": float("nan")}])
    with pytest.raises(UserError, match="json: row 2: prompt is empty"):
        read_prompts(str(tmp_path / "p.json"))
    with pytest.raises(UserError, match="parquet: row 2: score holds what JSON and UTF-8 cannot"):
        read_prompts(str(tmp_path / "p.parquet"))


def test_a_file_of_bad_rows_alone_is_refused_even_when_they_may_be_skipped(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", "{", "{")
    with pytest.raises(UserError, match=r"line 1: malformed JSON.* None of its 2 rows is good: mend the file"):
        read_prompts(path, skip_bad_rows=True)


def test_an_unknown_shape_shows_its_fields_and_the_known_ones(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", {"turns": ["One"], "id": 1})
    with pytest.raises(UserError, match=r"turns \(a list\), id \(a number\). Rename them to one of: prompt \(text or"):
        read_prompts(path)
    with pytest.raises(UserError, match="holds no pairs in a known shape"):
        read_pairs(write_jsonl(tmp_path / "q.jsonl", *ROWS))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.jsonl", b"", "is empty: give a file with at least one row"),
        ("p.jsonl", b" \n\n", "is empty"),
        ("p.json", b"[]", "holds no rows"),
        ("p.json", b'{"data": []}', "holds one JSON value that is no list"),
        ("p.json", b'[{"prompt": "x"},\n {"prompt" 3}]', "line 2: malformed JSON: Expecting ':' delimiter"),
        ("p.json", b'[{"prompt":\n "caf\xe9"}]', "line 2: not UTF-8: byte 0xe9 at place 6"),
        ("p.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        ("p.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        ("p.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        ("p.parquet", b"PAR1 but not really PAR1", "is no Parquet file that can be read"),
        ("p.jsonl.gz", LINES, "is not gzipped: take .gz off its name"),
        ("p.jsonl", gzip.compress(LINES, mtime=0), "is gzipped: name it .gz"),
        ("p.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], "is damaged"),
        ("p.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("p.txt", LINES, r"its type is not known by its name. Name it one of .jsonl, .ndjson, .json, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_one_line(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as refused:
        read_prompts(str(path), skip_bad_rows=True)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", *ROWS)
    with pytest.raises(UserError, match=r"promts\.jsonl does not exist; the nearest name in .* is prompts\.jsonl"):
        read_prompts(str(tmp_path / "promts.jsonl"))
    with pytest.raises(UserError, match=r"does not exist, and there is nothing in .*/nowhere"):
        read_prompts(str(tmp_path / "nowhere" / "p.jsonl"))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="directory"):
        read_prompts(str(tmp_path))


def test_labels_without_any_pair_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", {"prompt": "a", "completion": "x", "label": True})
    with pytest.raises(UserError, match="1 labelled completions and no prompt with both labels"):
        read_pairs(path)
