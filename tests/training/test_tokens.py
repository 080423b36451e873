"""Files become training documents: QA in two parts, running text as it is, faults by file and line."""

import gzip
import itertools
import json

import pandas as pd
import pytest

from qatoolkit.run.cli import main
from qatoolkit.training.tokens import CHUNK, open_tokens, qa_documents, text_documents, train_tokenizer, write_tokens


def test_a_question_is_a_prompt_and_its_answer_in_either_language():
    table = pd.DataFrame(
        {"question": ["What is 2 + 2?", "二加二等于几？"], "answer": ["4", "四"], "language": ["en", "zh"]}
    )
    assert list(qa_documents(table)) == [
        ("Question: What is 2 + 2?\nAnswer:", " 4"),
        ("问题：二加二等于几？\n答案：", "四"),
    ]


def test_texts_come_from_parquet_and_json_lines_in_order(tmp_path):
    pd.DataFrame({"text": ["one", "", None, "two"]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n\n{"text": "四"}\n', encoding="utf-8")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"text": "five"}\n')
    files = [tmp_path / name for name in ("a.parquet", "b.jsonl", "c.jsonl.gz")]
    assert list(text_documents(files)) == ["one", "two", "three", "四", "five"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "line 2"),
        ("a.jsonl", '{"text": "x"}\nnot json\n', "line 2"),
        ("a.jsonl", '{"text": 5}\n', "line 1"),
        ("a.jsonl", '{"text": "caf\xe9"}\n'.encode("latin-1"), "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n')[:-6], "is damaged"),
        ("a.parquet", "x", "not a complete Parquet file"),
        ("a.doc", "x", "parquet and .jsonl"),
        ("missing.jsonl", None, "does not exist"),
    ],
)
def test_what_holds_no_text_is_named(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=expected) as caught:
        list(text_documents([tmp_path / name]))
    assert name in str(caught.value)


def test_a_parquet_file_without_the_column_is_named(tmp_path):
    pd.DataFrame({"body": ["x"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="it has body"):
        list(text_documents([tmp_path / "a.parquet"]))
    pd.DataFrame({"n": [1]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="column 'n' has int, not text"):
        list(text_documents([tmp_path / "b.parquet"], "n"))


def test_files_are_tokenised_from_the_command_line(world, tmp_path, capsys):
    rows = [{"question": f"What is {i} plus 1?", "answer": str(i + 1)} for i in range(5)] + [
        {"question": "", "answer": ""}
    ]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"body": f"Text {i}."}) for i in range(7)))
    command = ["tokenise", "--tokenizer", str(world / "tokenizer")]
    assert main([*command, str(tmp_path / "qa.jsonl"), "--out", str(tmp_path / "q")]) == 0
    assert "could not be read" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "text.jsonl"), "--text", "body", "--out", str(tmp_path / "t")]) == 0
    assert main([*command, str(tmp_path / "text.jsonl"), "--out", str(tmp_path / "none")]) == 2
    assert "--text" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main([*command, str(tmp_path / "qa.jsonl"), "--out", str(tmp_path)]) == 2
    assert "is not replaced" in capsys.readouterr().err
    assert (tmp_path / "qa.jsonl").exists()
    assert len(open_tokens(tmp_path / "q")) == 5
    assert (open_tokens(tmp_path / "q").given > 0).all()
    assert len(open_tokens(tmp_path / "t")) == 7
    assert main([*command, str(tmp_path / "text.jsonl"), "--text", "absent", "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_running_text_is_cut_between_paragraphs_and_nothing_is_lost(tmp_path):
    paragraphs = [f"Paragraph {i}. " + "word " * (40 + i % 7) for i in range(400)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs[:200]), encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(paragraphs[200:]))
    found = list(text_documents([tmp_path]))
    assert " ".join(" ".join(found).split()) == " ".join(" ".join(paragraphs).split())
    assert all(len(document) < 2 * CHUNK for document in found)
    assert len(found) > 5


def test_writing_stops_at_the_tokens_asked_for(tmp_path):
    texts = ["one two three"] * 1000
    tokenizer = train_tokenizer(texts, 300)
    endless = itertools.cycle(texts)
    written = write_tokens(endless, tokenizer, tmp_path / "out", most=2000)
    assert 2000 <= len(written.tokens) < 4000
