"""Files become training documents: QA in two parts, running text as it is, faults by file and line."""

import gzip
import itertools
import json
import os

import pandas as pd
import pytest

from qatoolkit.core.qa_table import qa_table
from qatoolkit.curate.curate import curate
from qatoolkit.curate.settings import CurateSettings
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
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n', mtime=0)[:-6], "is damaged"),
        ("a.parquet", "x", "not a complete Parquet file"),
        ("a.doc", "x", "parquet or .jsonl"),
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


SEVERAL = {"choices": ["3", "4", "5"], "answer": "AC", "answer_index": None}
ONE = {"choices": ["iron", "neon"], "answer": "neon", "answer_index": 1}


@pytest.mark.parametrize(
    ("row", "holds", "expected"),
    [
        ({"question": "Which are odd?"} | SEVERAL, (), ("Question: Which are odd?\nA. 3\nB. 4\nC. 5\nAnswer:", " AC")),
        ({"question": "Which of the following is a gas?"} | ONE, (), ("Question: Which of the following is a gas?\nA. iron\nB. neon\nAnswer:", " neon")),
        ({"question": "下列哪项是气体？", "language": "zh"} | ONE, (), ("问题：下列哪项是气体？\nA. iron\nB. neon\n答案：", "neon")),
        ({"question": "Name a gas."} | ONE, (), ("Question: Name a gas.\nAnswer:", " neon")),
        ({"question": "Name a gas."} | ONE, ("choices",), ("Question: Name a gas.\nA. iron\nB. neon\nAnswer:", " neon")),
        ({"question": "Two and two?", "answer": "4", "rationale": " 2 + 2 = 4. "}, ("rationale",), ("Question: Two and two?\nAnswer:", " 4\nExplanation: 2 + 2 = 4.")),
        ({"question": "Two and two?", "answer": "4", "rationale": "so it is"}, (), ("Question: Two and two?\nAnswer:", " 4")),
        ({"question": "Two and two?", "answer": "4"}, ("rationale", "choices"), ("Question: Two and two?\nAnswer:", " 4")),
    ],
)  # fmt: skip
def test_a_document_holds_what_is_asked_for_and_choices_that_give_it_meaning(row, holds, expected):
    assert list(qa_documents(qa_table([{"language": "en"} | row], source="s"), holds)) == [expected]


BARE = (
    "Which of the following is a prime number?",
    "Which one of these statements is true?",
    "All of the following are metals except",
    "What is the best answer?",
    "下列说法中正确的是（ ）",
    "以下哪个选项符合题意？",
)
WHOLE = (
    "Solve the following equation: x + 2 = 5.",
    "Which of the following numbers is prime: 4, 6, 7?",
    "Which of these is right? (a) 1 < 2. (b) 2 < 1.",
    "How many of those 12 apples does each of the 3 children get?",
    "下列各式：①2>1；②1>2。正确的是哪一个？",
    "What is the sum of the roots of the following polynomial?",
)


def test_a_question_without_the_choices_it_speaks_of_is_never_trained_on():
    rows = [{"question": q, "answer": "7", "language": "zh" if q > "一" else "en"} for q in (*BARE, *WHOLE)]
    table = qa_table(rows, source="s")
    for question in BARE:
        with pytest.raises(ValueError, match="refers to choices and has none"):
            list(qa_documents(table[table["question"] == question]))
    assert len(list(qa_documents(table[table["question"].isin(WHOLE)]))) == len(WHOLE)
    kept, rejects, _ = curate(table, settings=CurateSettings(near_threshold=1.0))
    assert set(kept["question"]) == set(WHOLE)
    assert set(rejects["reason"]) == {"no_choices"}


def test_what_is_no_file_in_a_folder_of_texts_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("some text\n")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match=r"pipe\.txt is not a regular file"):
        list(text_documents([tmp_path]))
