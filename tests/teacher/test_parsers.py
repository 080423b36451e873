"""What models and servers send is read for what it means, and nothing they send is an exception that nobody expects."""

import json
import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.synthesis import annotate, knowledge_points, write
from qatoolkit.teacher.batch_jobs import read_lines
from qatoolkit.teacher.calls import Row, to_table
from qatoolkit.teacher.completions import ANSWERED, Reply, Response, read_completion, read_response
from qatoolkit.teacher.prompts import as_text, read_json
from qatoolkit.teacher.settings import Price
from qatoolkit.teacher.solve import read_answer
from qatoolkit.teacher.transport import Endpoint
from qatoolkit.teacher.waits import retry_after

PARSERS = [annotate._read_labels, write.read_questions, read_answer, knowledge_points._read_points]
PLENTY = settings(max_examples=300, deadline=None)

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
# JSON's own pieces in random order, which get further into a parser than random letters do.
PIECES = (
    "{ } [ ] , : \" ' “ ” \\ \\n \\frac \\u12 1 - None // /* */ <think> </think> ```"
    ' "questions" "question" "answer" "knowledge_points" "discipline" {"answer":'
)
json_like = st.lists(st.sampled_from([*PIECES.split(), "\n", " "]), max_size=40).map("".join)
# Texts without a control character before a letter, which is how an unescaped LaTeX command arrives.
plain = st.text(st.characters(exclude_characters="\b\f\r\t\n\\", exclude_categories=["Cs"]), max_size=30)
names = plain.filter(lambda name: not set(name) & set("\"'“”{}"))
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain
objects = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3)),
    min_size=1,
    max_size=4,
)


def outcome(call, *arguments):
    """(what a call returned, None) or (None, the ValueError it raised); nothing else may be raised."""
    try:
        return call(*arguments), None
    except ValueError as error:
        return None, error


# --- JSON from models ----------------------------------------------------------------------------------


@PLENTY
@given(st.text() | json_like | any_json.map(lambda value: f"So: {json.dumps(value)}"))
def test_no_answer_of_a_model_raises_anything_but_what_the_model_is_told(content):
    for parse in (read_json, *PARSERS):
        value, error = outcome(parse, content)
        assert value or error or parse is read_json
        assert not isinstance(error, UnicodeError)
        json.dumps(value, ensure_ascii=False).encode()  # whatever was read can be stored


@PLENTY
@given(objects)
def test_strict_json_reads_as_the_json_module_reads_it(value):
    assume("</think>" not in json.dumps(value))
    assert read_json(json.dumps(value)) == read_json(json.dumps(value, indent=2, ensure_ascii=False)) == value


@PLENTY
@given(
    objects,
    st.sampled_from(
        [
            "{}",
            "Sure! Here it is:\n```json\n{}\n```\nHope that helps {{really}}.",
            '<think>Perhaps {{"answer": "a draft"}}? No.</think>\n{}',
            "the draft was thought before, without an opening tag</think>{}",
            "The set {{1,2}} and \\frac{{1}}{{2}} and f^{{'}}(x), {{x: x > 0}}, {{'a', 'b'}} are not it. {}",
            'The form is {{"question": ..., "answer": ...}}, so: {}',
            "结果如下：{}。",
            "{}\n\nNote: {{}} is the empty set.",
        ]
    ),
    st.sampled_from([None, 2]),
)
def test_an_object_is_found_in_any_talk(value, talk, indent):
    written = json.dumps(value, ensure_ascii=False, indent=indent)
    assume("</think>" not in written)
    assert (
        read_json(talk.format(written.replace("{", "{{").replace("}", "}}")).replace("{{", "{").replace("}}", "}"))
        == value
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('{"answer": "x", }', {"answer": "x"}),
        ('{"a": ["x", "y",],}', {"a": ["x", "y"]}),
        ("{'answer': 'x', 'why': \"it's\"}", {"answer": "x", "why": "it's"}),
        ("{'answer': 'say \"x\"'}", {"answer": 'say "x"'}),
        ("{‘answer’: ‘x’, ‘why’: ‘y’}", {"answer": "x", "why": "y"}),
        ('{"it’s": "Ann’s"}', {"it’s": "Ann’s"}),
        ('{\u200b"answer": "x"}', {"answer": "x"}),
        ('{\n  # the result\n  "answer": "x"  # final\n}', {"answer": "x"}),
        ('{"a": +5, "b": .5, "c": 5., "d": 007}', {"a": "+5", "b": ".5", "c": "5.", "d": "007"}),
        ('<thinking>{"answer": "y"}?</thinking>\n{"answer": "x"}', {"answer": "x"}),
        ('<REASONING>{"answer": "y"}?</REASONING>{"answer": "x"}', {"answer": "x"}),
        ('◁think▷{"answer": "y"}?◁/think▷{"answer": "x"}', {"answer": "x"}),
        ('{"answer": "don\\\'t"}', {"answer": "don't"}),
        (
            '{"answer": "x" // as asked\n, /* or\n not */ "b": "http://x.org/*1*/"}',
            {"answer": "x", "b": "http://x.org/*1*/"},
        ),
        ('{\n  // the answer\n  "answer": "x"}', {"answer": "x"}),
        (
            '{"a": True, "b": False, "c": None, "d": "None of True"}',
            {"a": True, "b": False, "c": None, "d": "None of True"},
        ),
        ('{"answer": "one\ntwo\tthree"}', {"answer": "one\ntwo\tthree"}),
        ('{“answer”: “x”, “b”: "“quoted”"}', {"answer": "x", "b": "“quoted”"}),
        ('{"answer"："x"，"b"：1}', {"answer": "x", "b": 1}),
        ('{"answer": {"x": {"y": [1, {"z": "}"}]}}}', {"answer": {"x": {"y": [1, {"z": "}"}]}}}),
        ('{"answer": "x"}}} and {so on', {"answer": "x"}),
        ('{"answer": "\\u4e2d\\ud83d\\ude00"}', {"answer": "中😀"}),
        ('{"answer": "half \\ud83d"}', {"answer": "half \ufffd"}),
        ('{"answer": NaN}', {"answer": "NaN"}),
        ('{"answer": [- 5, [1,2,3]]}', {"answer": [-5, [1, 2, 3]]}),
        ('｛"answer"："｛1｝"，"b"：“y”｝', {"answer": "｛1｝", "b": "y"}),
        (r"{\"answer\": \"say \\\"x\\\" \\n $\\frac{1}{2}$\"}", {"answer": 'say "x" \n $\\frac{1}{2}$'}),
        ('<reflection>{"answer": "y"}?</reflection>{"answer": "x"}', {"answer": "x"}),
        ('{"answer": "</analysis>{"}', {"answer": "</analysis>{"}),
    ],
)
def test_what_models_write_instead_of_json_is_read_for_what_it_means(written, meant):
    assert read_json(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\( x \) and \[ y \]", r"\( x \) and \[ y \]"),
        (r"$\beta \times \theta \rho \nabla \bar{x} \text{ m} \right) \neq \tan x \to \tau$", None),
        (r"\boxed{3} \binom{n}{k} \forall \not\in \notin \rightarrow \triangle \underline{u} \upsilon", None),
        (r"$\nu = c/\lambda$, $x \ne 0$, \{1, 2\}, 5\%, \sqrt{2}", None),
        (r"$h\nu$", None),
        (r"E = h\nu", None),
        (r"x \ne 0", None),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", None),
        (r"\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\\alpha\nNext line \\nu", "\\alpha\nNext line \\nu"),
        (r"C:\\temp\\new", r"C:\temp\new"),
        # Real line feeds, tabs and the rest stay what they are.
        (r"First.\nSecond.\n\nthird\n1. x\n- y\n中", "First.\nSecond.\n\nthird\n1. x\n- y\n中"),
        (r"x = 2\nu = 3", "x = 2\nu = 3"),
        (r"Let x\ne is Euler's number", "Let x\ne is Euler's number"),
        (r"Cases:\ni) one\nii) two", "Cases:\ni) one\nii) two"),
        (r"Choose A\nnot B\nneither\nnumber\nnew", "Choose A\nnot B\nneither\nnumber\nnew"),
        (r"name\tage\tto\ttext\ttime", "name\tage\tto\ttext\ttime"),
        (r"a\r\nb\rc", "a\r\nb\rc"),
        (r"\"quoted\" \/ \\", '"quoted" / \\'),
        (r"\u00e9\u4e2d", "é中"),
    ],
)
def test_latex_with_single_backslashes_survives_and_line_feeds_stay(written, meant):
    """`meant` None: exactly as written."""
    meant = written if meant is None else meant
    assert read_json('{"answer": "%s"}' % written) == {"answer": meant}  # noqa: UP031
    assert read_answer('{"answer": "%s"}' % written)["answer"] == meant.strip()  # noqa: UP031


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # In a formula, before an argument or between two symbols it is a command, whatever its name.
        (r"\( a \nmid b \) and \[ \lceil x \rceil \]", None),
        (r"$x \nVdash y$, $a \trianglelefteq b$, $\rrbracket$, $ x \nprec y $", None),
        (r"\boxed{x \ngeqslant y}", None),
        (r"p \nLeftrightarrow q", None),
        (r"7 \nmid 9 and $a \nparallel b$", None),
        (r"about 5\textasciitilde\textup{kg}", None),
        (r"the \nmid-term\nparallel to it\nexists", "the \nmid-term\nparallel to it\nexists"),
        (r"10\xa0kg \xi and \xcancel{y}", "10\xa0kg \\xi and \\xcancel{y}"),
        (r"\begin{align} \tfrac12 &= \rvert x\\ \nu &= 1 \end{align}", None),
        (r"$\begin{pmatrix} a\\b \end{pmatrix}$", None),
        (r"25 \textdegree and \rotatebox{90}{x} and \tnorm{x}", None),
        (r"${\rm d}x$, $a \ne b$, $c \ni d$, $\uplus \unlhd \upsilon$", None),
        # Two prices are no formula, and a formula on several lines keeps its lines.
        (r"It costs $5.\nThe rest is $3.", "It costs $5.\nThe rest is $3."),
        (r"Price: $20\ntax: $3\ntotal: $23", "Price: $20\ntax: $3\ntotal: $23"),
        (r"I have 5$\nand he has 6$\nnow", "I have 5$\nand he has 6$\nnow"),
        (r"for $5.\nthen $3 more, and $x \ngtr y$", "for $5.\nthen $3 more, and $x \\ngtr y$"),
        (r"$$\nx = 2\n\nabla f = ab\nab = 1\n$$", "$$\nx = 2\n\\nabla f = ab\nab = 1\n$$"),
        # Text beside bare commands keeps its line feeds and tabs.
        (r"$\alpha$.\nthus 5.\nso $\nRightarrow$\nright", "$\\alpha$.\nthus 5.\nso $\\nRightarrow$\nright"),
        (r"a\tb\tcost $\mu$\ntotal", "a\tb\tcost $\\mu$\ntotal"),
        (r"p{color:red}\nbody{margin:0}", "p{color:red}\nbody{margin:0}"),
        (r"Find x \nfor x > 0", "Find x \nfor x > 0"),
        (r"line one\rline two", "line one\rline two"),
        (r"Use \\(x\\)\nnext \\(y\\)\nabout", "Use \\(x\\)\nnext \\(y\\)\nabout"),
    ],
)
def test_the_text_around_tells_a_command_from_a_line_feed(written, meant):
    """`meant` None: exactly as written."""
    assert read_json(f'{{"answer": "{written}"}}') == {"answer": written if meant is None else meant}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((text, text) for text in ("2.50", "-0", "1e400", "0.10", "6.02e23", "7" * 5000)),
        *(("2.5", 2.5), ("-3", -3), ("[1.0, 1.00]", [1.0, "1.00"])),
    ],
)
def test_numbers_stay_as_they_were_written(written, meant):
    assert read_json(f'{{"answer": {written}}}') == {"answer": meant}


@pytest.mark.parametrize(
    "written",
    [
        "[4 5]",
        "8 9",
        "7 /* or */ 8",
        "6 # six\n 5",
        "2 e3",
        "[[0 1], [1 0]]",
        "3. 14",
        "[2,000]",
        "[3,200, 4]",
        "[4, 3,200]",
    ],
)
def test_what_may_be_one_number_or_several_is_refused(written):
    with pytest.raises(ValueError, match=r"number|cannot be read"):
        read_json(f'{{"answer": {written}}}')


def test_a_valid_list_is_read_however_its_commas_are_spaced():
    assert read_json('{"answer": [1,2, 3,4]}') == {"answer": [1, 2, 3, 4]}


def test_a_repeated_key_is_refused_unless_it_says_the_same():
    assert read_json('{"answer": "x", "why": "w", "answer": "x"}') == {"answer": "x", "why": "w"}
    for twice in (
        '{"answer": "5", "answer": "6"}',
        '{"answer": 1, "answer": true}',
        '{"questions": [{"question": "q1", "answer": "1", "question": "q2", "answer": "2"}]}',
        '{"plan": {"step": "a", "step": "b"}, "answer": "x"} {"answer": "x"}',
    ):
        with pytest.raises(ValueError, match="twice, with different values"):
            read_json(twice, "answer")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\begin{cases} t \\[3mm] u \\(v) \\{w} \\ \end{cases}", None),
        (r"$\left[\begin{matrix}pq\\rs\\\hline 1\\2\end{matrix}\right]$", None),
        (r"\begin{cases} 1 \\ 2 \end{cases}, that is \\(x\\)", r"\begin{cases} 1 \\ 2 \end{cases}, that is \(x\)"),
        (r"\begin{cases} 1 & x \\geq 0 \\\\ 2 \end{cases}", r"\begin{cases} 1 & x \geq 0 \\ 2 \end{cases}"),
        (r"\\begin{matrix}pq\\\\rs\\\\[2pt] \\nu\\end{matrix}", r"\begin{matrix}pq\\rs\\[2pt] \nu\end{matrix}"),
    ],
)
def test_the_ends_of_rows_stay(written, meant):
    """`meant` None: exactly as written."""
    assert read_json(f'{{"answer": "{written}"}}') == {"answer": written if meant is None else meant}


def test_a_command_that_may_be_the_end_of_a_row_is_refused():
    with pytest.raises(ValueError, match="four to end a row"):
        read_json(r'{"answer": "\begin{cases} 1 & x \\geq 0 \\ 2 \end{cases}"}')


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # At the start, next to an operator or between symbols.
        *((text, None) for text in (r"\nu", r"\nu_k", r"\ni", r"\neg(p)", r"\nless 7", r"\tr(B)", r"\tiny", r"\b{y}")),
        *((text, None) for text in (r"(\neg q)", r"z = \nu", r"g(t)\ne h(t)", r"B \ni b", r"PQ \nparallel RS")),
        (r"where the frequency is \nu_1 and", None),
        # Among escaped commands.
        (r"$\\sqrt{2} \ne \\pi$ and $\\mu \nsubseteq K$", r"$\sqrt{2} \ne \pi$ and $\mu \nsubseteq K$"),
        (r"\\pi \to \\mu", r"\pi \to \mu"),
        # Line feeds and tabs.
        (r"v = 3\nu_0 = 4", "v = 3\nu_0 = 4"),
        (r"Which?\n\ni) $\mu$\nii) $\pi$", "Which?\n\ni) $\\mu$\nii) $\\pi$"),
        (r"\nmid-term", "\nmid-term"),
        (r"\tr\tp", "\tr\tp"),
        (r"\ni think", "\ni think"),
        (r"foo(\ni, j)", "foo(\ni, j)"),
        (r"Q1 (5)\ne 3", "Q1 (5)\ne 3"),
        (r"$$\nab = \\pi\n$$, $$c = \\pi \\\\ \nde = 3$$", "$$\nab = \\pi\n$$, $$c = \\pi \\\\ \nde = 3$$"),
        (r"$\\pi$\nthen $\\mu$", "$\\pi$\nthen $\\mu$"),
        (r"\\pi = 3\nu = 4", "\\pi = 3\nu = 4"),
    ],
)
def test_a_line_feed_or_tab_is_none_where_a_formula_has_a_command(written, meant):
    """`meant` None: exactly as written."""
    assert read_json(f'{{"answer": "{written}"}}') == {"answer": written if meant is None else meant}


FORMULAE = (
    r"\frac{1}{2} \beta \times \theta \rho \nabla \neq \text{m} \right) \bar{x} \alpha \sqrt{2} \( \) x^2 = + 7 的"
)


@PLENTY
@given(st.lists(st.sampled_from(FORMULAE.split()), min_size=1, max_size=12).map(" ".join))
def test_a_formula_reads_the_same_escaped_or_not(formula):
    escaped = json.dumps({"answer": formula})
    assert read_json(escaped) == read_json(f'{{"answer": "{formula}"}}') == {"answer": formula}


@PLENTY
@given(st.lists(st.fixed_dictionaries({"question": plain, "answer": plain}), min_size=1, max_size=4), st.data())
def test_a_cut_off_answer_is_never_a_shorter_one(items, data):
    items = [{name: text.strip() + "." for name, text in item.items()} for item in items]
    written = json.dumps({"questions": items}, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(written) - 1))
    with pytest.raises(ValueError, match="JSON"):
        write.read_questions(written[:cut])
    bare = json.dumps(items, ensure_ascii=False)
    with pytest.raises(ValueError, match="JSON"):
        write.read_questions(bare[: min(cut, len(bare) - 1)])
    assert write.read_questions(written) == write.read_questions(f"Here: {bare}.") == items


@pytest.mark.parametrize(
    "prose",
    [
        "",
        "I cannot do that.",
        "the set {1,2}",
        "{x: x > 0}",
        "f: {a} -> {b}",
        "[1] says so",
        "{'a', 'b'}",
        '{"a", "b"}',
        "{",
        "}",
    ],
)
def test_prose_is_never_made_an_object(prose):
    for parse in (read_json, *PARSERS):
        with pytest.raises(ValueError, match="JSON"):
            parse(prose)


@pytest.mark.parametrize(
    "hostile",
    [
        *("{" * 100_000, '{"a":' * 50_000, "[{" * 50_000, '{"a": [' * 50_000, "{}" * 50_000, '{"a"' * 50_000),
        *(
            '{"a": "' + '\\"' * 50_000,
            "{'a': '" * 20_000,
            '{"answer": "$' + "\\nu \\\\ \\b" * 10_000 + '"}',
            '{"a": 1} ' * 20_000,
            '{"answer": ' + "9" * 5_000 + "}",
        ),
        *(
            '{"a": /*' * 20_000,
            "{ " * 50_000,
            "{" + " " * 100_000,
            '{"' + "a" * 100_000,
            "“" * 100_000,
            "</think>{" * 20_000,
            '{"answer": "' + r"x \nab y " * 10_000 + '"}',
            '{"answer": "' + r"\begin{a} \\ " * 10_000 + r'\end{a}"}',
        ),
    ],
    ids=lambda text: f"{text[:10]}...",
)
def test_hostile_lengths_are_read_in_time_and_without_recursion(hostile):
    for parse in (read_json, *PARSERS):
        started = time.process_time()
        _, error = outcome(parse, hostile)
        assert len(str(error)) < 1000
        assert time.process_time() - started < 2


def test_the_complaint_says_what_was_wrong():
    for written, told in [
        ("no", "no JSON object"),
        ('{"answer": "x', "cut off"),
        ('{"answer": "x"', "cut off"),
        ('{"answer": "a "b" c"}', "cannot be read"),
        ('{"answer": 1]', "balance"),
    ]:
        with pytest.raises(ValueError, match=told):
            read_json(written)


# --- What the stages read out of it --------------------------------------------------------------------


def test_objects_that_differ_in_what_was_asked_for_are_asked_for_again():
    draft = '{"answer": "5"} Wait, that is wrong: {"answer": "6"}'
    with pytest.raises(ValueError, match="several JSON objects have 'answer', and differ"):
        read_json(draft, "answer")
    assert read_json('{"answer": "5"} So: {"answer": "5", "rationale": "r"} {"oth', "answer") == {"answer": "5"}


@pytest.mark.parametrize(
    "second",
    ['{"answer": "6', '{"answer":', '{"ans', "{'answer': 'it's 6'}", '{"why": "w", "answer": [1', '{"answer": 6 7}'],
)
def test_a_second_object_that_is_cut_or_broken_is_asked_for_again(second):
    with pytest.raises(ValueError, match="JSON"):
        read_json('{"answer": "5"} No: ' + second, "answer")


@pytest.mark.parametrize(
    "form", ['{"answer": ...}', '{"answer": "...", "why": ...}', '{"answer": text}', "{'why': 'it's"]
)
def test_a_form_after_the_object_is_no_second_one(form):
    assert read_json('{"answer": "5"} The form is ' + form, "answer") == {"answer": "5"}


def test_the_object_with_what_was_asked_for_is_taken():
    both = '{"plan": "think"} then {"answer": "x"}'
    assert read_answer(both) == {"answer": "x", "rationale": ""}
    assert knowledge_points._read_points('{"note": 1} {"knowledge_points": ["a ", "b", "a"]}') == ["a", "b"]
    assert knowledge_points._read_points('["a", "b"]') == ["a", "b"]
    assert knowledge_points._read_points('["a"] or rather ["a"]') == ["a"]
    with pytest.raises(ValueError, match="several JSON lists"):
        knowledge_points._read_points('["a"] and ["b"]')


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (False, "false"), (0.5, "0.5"), (" x ", "x"), (["a", 1], "a, 1"), (None, ""), ([], ""), (True, "true")],
)
def test_an_answer_that_is_no_text_is_written_as_one_and_zero_is_an_answer(value, text):
    assert as_text(value) == text
    if text:
        assert read_answer(json.dumps({"answer": value}))["answer"] == text
        item = {"question": "q", "answer": value}
        assert write.read_questions(json.dumps({"questions": [item]})) == [{"question": "q", "answer": text}]
    else:
        with pytest.raises(ValueError, match="non-empty"):
            read_answer(json.dumps({"answer": value}))


@pytest.mark.parametrize("value", [{"x": 1}, [["a"]], [{"a": 1}]])
def test_an_answer_with_parts_is_asked_for_as_text(value):
    with pytest.raises(ValueError, match="one text"):
        read_answer(json.dumps({"answer": value}))


# --- What servers send ---------------------------------------------------------------------------------

counts = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=1)
completions = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "message": st.fixed_dictionaries(
                        {},
                        optional={
                            name: any_json | st.text()
                            for name in ("content", "reasoning_content", "reasoning", "refusal", "tool_calls")
                        },
                    )
                    | any_json,
                    "finish_reason": st.sampled_from(["stop", "length", "content_filter"]) | any_json,
                },
            ),
            max_size=2,
        )
        | any_json,
        "usage": st.fixed_dictionaries(
            {},
            optional={
                "prompt_tokens": counts,
                "completion_tokens": counts,
                "completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": counts}) | any_json,
                "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": counts}) | any_json,
                "prompt_cache_hit_tokens": counts,
            },
        )
        | any_json,
        "error": any_json | st.fixed_dictionaries({"message": any_json}),
    },
)


def storable(reply: Reply) -> None:
    """Texts that any file can hold, token counts that a table, a price and SQLite can."""
    assert isinstance(reply, Reply)
    for text in (reply.outcome, reply.content, reply.reasoning, reply.error):
        assert text is None or text.encode() is not None
    tokens = (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens)
    to_table([Row(0, 0, "", reply.outcome, None, reply.content, reply.reasoning, *tokens, *_rest(reply))])
    assert all(count is None or (type(count) is int and 0 <= count < 2**63) for count in (*tokens, reply.cached_tokens))
    if None not in tokens[:2]:
        assert math.isfinite(Price(input=1.0, output=1.0).cost(*tokens[:2], reply.cached_tokens))


def _rest(reply: Reply) -> list:
    """The columns of a row after its token counts."""
    known = {"cost": 0.0, "cached": False, "attempts": 1, "error": reply.error}
    return [known.get(name, ()) for name in Row._fields[Row._fields.index("reasoning_tokens") + 1 :]]


@PLENTY
@given(completions | any_json)
def test_any_json_from_a_server_is_a_typed_outcome_or_no_completion(response):
    reply, error = outcome(read_completion, response)
    if error:
        assert str(error) == "not a chat completion"
    else:
        assert reply.outcome in {*ANSWERED, "http_200"}
        storable(reply)


@PLENTY
@given(
    st.sampled_from([200, 201, 204, 301, 400, 401, 404, 418, 429, 500, 503, 599]),
    st.binary().map(lambda body: body.decode("utf-8", "replace"))
    | st.text()
    | (completions | any_json).map(json.dumps),
)
def test_any_response_is_a_typed_outcome(status, text):
    reply, answer = read_response(Response(status, {}, text))
    storable(reply)
    assert (reply.outcome in ANSWERED) == (answer is not None)
    assert answer is not None or reply.outcome == f"http_{status}"


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"error":' * 50_000, "9" * 10_000, "", "null", "\x00"])
def test_a_hostile_body_is_a_failed_request(status, text):
    reply, answer = read_response(Response(status, {}, text))
    assert (reply.outcome, answer) == (f"http_{status}", None)
    assert len(reply.error) < 500


def test_reasoning_is_never_part_of_the_answer_wherever_a_server_puts_it():
    parts = [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "4"}, {"type": "reasoning", "text": "so"}]
    for message in (
        {"content": parts},
        {"content": "<think>hm</think>\n4", "reasoning_content": "hm"},
        {"content": "4", "reasoning": "hm"},
    ):
        assert read_completion({"choices": [{"message": message}]})[:2] == ("ok", "4")


def test_tokens_that_only_the_total_holds_are_paid_for_and_no_more_is_cached_than_was_sent():
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 376}  # as xAI and Gemini count
    usage |= {"prompt_tokens_details": {"cached_tokens": 1000}}
    reply = read_completion({"choices": [{"message": {"content": "4"}}], "usage": usage})
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == (32, 344, 32)


@pytest.mark.parametrize(
    ("finish", "outcome"),
    [
        ("stop", "ok"),
        (None, "ok"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("SAFETY", "refusal"),
        ("content_filter: RECITATION", "refusal"),
        ("error", "http_200"),
    ],
)
def test_the_end_of_an_answer_is_known_by_every_name_that_providers_give_it(finish, outcome):
    choice = {"message": {"content": "half an ans"}, "finish_reason": finish}
    assert read_completion({"choices": [choice]}).outcome == outcome
    assert read_completion({"choices": [choice], "error": {"message": "upstream died"}}).outcome == "http_200"


def test_an_answer_of_no_tokens_has_no_known_usage():
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert read_completion({"choices": [{"message": {"content": "4"}}], "usage": usage}).completion_tokens is None


def test_an_answer_counts_though_the_rest_of_its_message_is_odd():
    message = {"content": "x", "reasoning": {"effort": "high"}, "refusal": None}
    reply = read_completion(
        {"choices": [{"message": message}], "usage": {"prompt_tokens": "7", "completion_tokens": 3.0}}
    )
    assert reply[:5] == ("ok", "x", None, None, 3)
    assert (
        read_completion({"choices": [{"message": {"content": "x", "refusal": True}}], "usage": []}).outcome == "refusal"
    )


@PLENTY
@given(st.lists(st.binary() | any_json.map(lambda value: json.dumps(value).encode()), max_size=4))
def test_any_line_of_a_batch_file_says_something_or_nothing(lines):
    lines += [b'{"custom_id": "k", "response": {"status_code": 1e999, "body": {}}}', b"[" * 100_000]
    for got in read_lines(lines, Endpoint(base_url="http://127.0.0.1:1/v1")).values():
        storable(read_response(got)[0])


# --- Retry-After ---------------------------------------------------------------------------------------


@PLENTY
@given(st.text() | st.floats().map(str) | st.integers().map(str), st.none() | st.text() | st.floats().map(str))
def test_any_header_gives_seconds_to_wait(after, milliseconds):
    headers = {"Retry-After": after} | ({} if milliseconds is None else {"retry-after-ms": milliseconds})
    assert retry_after(headers) >= 0.0


@PLENTY
@given(st.integers(-(10**6), 10**6), st.sampled_from(["+0000", "-0000", "GMT"]))
def test_a_date_gives_the_seconds_until_then(seconds, zone):
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    wait = retry_after({"Retry-After": format_datetime(until).replace("+0000", zone)})
    assert wait == pytest.approx(max(0.0, seconds), abs=2)


def test_a_date_is_read_by_the_clock_of_the_server_that_sent_it():
    ahead = datetime.now(UTC) + timedelta(hours=3)
    headers = {"Date": format_datetime(ahead), "Retry-After": format_datetime(ahead + timedelta(seconds=20))}
    assert retry_after(headers) == 20.0


@pytest.mark.parametrize(
    "value",
    ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 32 Foo 2026 25:61:61 GMT", "²", "9" * 5000, ".", "-1", ""],
)
def test_a_date_that_is_none_asks_for_no_wait_or_an_endless_one(value):
    assert retry_after({"Retry-After": value}) in (0.0, math.inf)


# --- Answers -------------------------------------------------------------------------------------------

answers = st.text(max_size=25) | st.lists(
    st.sampled_from([*"0123456789.,+-*/^=()[]{}$%abxyAB° ", "\\frac{1}{2}", "\\sqrt{2}", "pi", "km", "千", "是", "yes", "e5", "√", "π"]),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(answers, answers)
def test_any_two_answers_are_compared_alike_in_both_directions(a, b):
    assert same_answer(a, b) == same_answer(b, a)


@settings(max_examples=150, deadline=None)
@given(answers)
def test_an_answer_is_the_same_as_itself(text):
    if any(character.isalnum() for character in text):
        assert same_answer(text, text) is True
