"""What notebooks show is escaped, clipped, free of style sheets and scripts, and says what it leaves out."""

import json
import threading
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qatoolkit.core import display

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' </div></details><style>*{display:none}</style>"
ALLOWED = {"div", "span", "details", "summary", "table", "tr", "td", "th"}


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.seen, self.attributes, self.open, self.text = set(), set(), [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def questions():
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "question": ["Symbol of iron?", "Capital of Chad?", HOSTILE],
            "answer": ["Fe", "N'Djamena", HOSTILE],
            "choices": [["Ir", "Fe", "Pb"], None, [HOSTILE, "b"]],
            "answer_index": [1.0, np.nan, 0.0],
            "discipline": ["chemistry", "geography", None],
            "knowledge_points": [["iron", "symbol"], np.array(["capital"]), [HOSTILE]],
            "licence": [None, None, HOSTILE],
        }
    )


def test_hostile_text_is_shown_as_text():
    outputs = [
        display.qa(questions()),
        display.facts({HOSTILE: HOSTILE}, HOSTILE),
        display.table(questions().rename(columns={"licence": HOSTILE})),
    ]
    for output in outputs:
        tags = Tags(output._repr_html_())
        assert tags.seen <= ALLOWED
        assert tags.attributes <= {"style"}
        assert "alert(1)" in "".join(tags.text)


def test_question_and_answer_come_first_and_the_right_choice_is_marked():
    html = display.qa(questions().iloc[:1])._repr_html_()
    assert html.index("Symbol of iron?") < html.index("✓ Fe") < html.index("<details>") < html.index("iron, symbol")
    assert html.count("✓") == 1
    assert "✓ Fe" in repr(display.qa(questions().iloc[:1]))


def test_without_an_index_the_choice_equal_to_the_answer_is_marked():
    table = questions().iloc[:1].assign(answer_index=None)
    assert "✓ Fe" in display.qa(table)._repr_html_()


def test_null_and_hidden_fields_are_left_out():
    html = display.qa(questions().iloc[1:2], hide=("knowledge_points",))._repr_html_()
    assert "licence" not in html
    assert "knowledge_points" not in html
    assert "geography" in html


def test_long_text_is_clipped_and_says_so():
    table = questions().iloc[:1].assign(question="x" * 1_000_000)
    html = display.qa(table)._repr_html_()
    assert len(html) < 5_000
    assert "(+998,800 characters)" in html


def test_a_price_is_no_formula_and_a_formula_stays_one():
    texts = "A pen costs $5 and a book costs $12.", "If $x^2 = 4$, what is $x$?", "Is $5 or $6 < $x$?"
    table = pd.DataFrame({"question": texts, "answer": "a"})
    html = display.qa(table)._repr_html_()
    assert "costs <span>$</span>5 and a book costs <span>$</span>12." in html
    assert "If $x^2 = 4$, what is $x$?" in html
    assert "Is <span>$</span>5 or <span>$</span>6 &lt; $x$?" in html
    assert "<span>$</span>5 and" in display.table(table)._repr_html_()


def test_the_same_seed_shows_the_same_questions():
    table = pd.DataFrame({"question": [f"q{i}" for i in range(100)], "answer": "a"})
    assert repr(display.qa(table, seed=3)) == repr(display.qa(table, seed=3)) != repr(display.qa(table, seed=4))
    assert "5 of 100 questions" in repr(display.qa(table))


def test_an_empty_table_is_a_clear_error():
    with pytest.raises(ValueError, match="0 rows"):
        display.qa(questions().iloc[:0])
    with pytest.raises(ValueError, match="'answer'"):
        display.qa(questions().drop(columns="answer"))


def test_facts_read_as_people_write_numbers():
    text = repr(display.facts({"questions": 12345, "share": 0.81254, "cost": None, "exact": True}, "Seeds"))
    assert text.split() == ["Seeds", "questions", "12,345", "share", "81.3%", "cost", "–", "exact", "yes"]


def test_table_writes_shares_in_percent_and_differences_in_points():
    accuracy = pd.DataFrame({"arm": ["base"], "n": [400], "accuracy": [0.5], "low": [0.45], "high": [np.nan]})
    assert repr(display.table(accuracy)).split()[-5:] == ["base", "400", "50.0%", "45.0%", "–"]
    difference = pd.DataFrame({"difference": [-0.021], "low": [-0.05], "high": [0.01], "learning_rate": [3e-4]})
    assert repr(display.table(difference)).split()[-4:] == ["−2.1", "−5.0", "+1.0", "0.0003"]
    assert "difference (points)" in display.table(difference)._repr_html_()


def test_table_shows_the_row_names_of_a_description_and_numbers_of_any_size():
    shown = repr(display.table(pd.DataFrame({"n": [1.0, 3.0]}).describe()))
    assert shown.split()[:3] == ["n", "count", "2"]
    assert {"mean", "50%", "max"} <= set(shown.split())
    assert repr(display.table(pd.DataFrame({"x": [1e300]}))).split() == ["x", "1e+300"]
    assert repr(display.table(pd.DataFrame({"initial_flops": [3953038248960.0]}))).split()[1] == "3.95e+12"


def test_the_numbers_of_a_column_have_as_many_decimals_as_each_other():
    table = pd.DataFrame(
        {"margin": [-8.5791, 0.81441, np.nan], "kl": [0.5519, 6.5e-05, 0.1], "kappa": [1.0, 0.97, 0.5]}
    )
    rows = [line.split() for line in repr(display.table(table)).splitlines()[1:]]
    assert rows == [["-8.579", "0.5519", "1.00"], ["0.814", "6.5e-05", "0.97"], ["–", "0.1", "0.50"]]
    assert repr(display.table(pd.DataFrame({"mean_paths": [3334.4]}))).split()[1] == "3,334"


def test_a_share_written_as_text_is_shown_as_it_is():
    assert repr(display.table(pd.DataFrame({"accuracy": ["80%", None, 0.5]}))).split() == [
        "accuracy", "80%", "–", "50.0%",
    ]  # fmt: skip


def test_table_takes_formats_shows_a_named_index_and_counts_what_it_leaves_out():
    table = pd.DataFrame({"cost": np.arange(60.0)}, index=pd.Index(range(60), name="call"))
    shown = display.table(table, {"cost": ".2f"}, limit=2)
    assert "call" in shown._repr_html_()
    assert "1.00" in repr(shown)
    assert "58 more rows" in repr(shown)
    assert "58 more rows" in shown._repr_html_()


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns: `clock.now`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_progress_prints_plain_lines_and_always_a_closing_one(capsys, clock):
    with display.Progress(4, "synthesise", "questions", every=0) as progress:
        for _ in range(4):
            clock.now += 1
            progress.update(cost=0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "synthesise: 1/4 questions (25%, cost 0.25)",
        "synthesise: 2/4 questions (1/s, 50%, 2.0 s left, cost 0.25)",
        "synthesise: 3/4 questions (1/s, 75%, 1.0 s left, cost 0.25)",
        "synthesise: 4/4 questions (1/s, 100%, 0.0 s left, cost 0.25)",
        "synthesise: 4/4 questions in 4.0 s (1/s, cost 0.25)",
    ]


def test_the_rate_is_of_late_and_a_slow_start_does_not_count(capsys, clock):
    with display.Progress(100_000, "training", "tokens", every=0) as progress:
        clock.now = 60.0  # a worker starts
        for step in range(100):
            clock.now += 1
            progress.update(10 if step < 50 else 500)
            if step in (40, 99):
                assert f"({10 if step < 50 else 500}/s" in progress._line()
    assert "25,500/100,000 tokens in 2 min 40 s" in capsys.readouterr().out.splitlines()[-1]


def test_more_than_expected_is_not_more_than_all(capsys):
    with display.Progress(120_000, "training", "tokens", every=0) as progress:
        progress.update(120_236)
    assert "training: 120,236/120,236 tokens (100%" in capsys.readouterr().out


def test_progress_of_a_short_loop_is_one_line(capsys):
    with display.Progress(None, "read", "rows") as progress:
        for _ in range(10_000):
            progress.update()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("read: 10,000 rows in ")


def test_progress_says_when_it_was_stopped_and_lets_the_error_through(capsys):
    def stopped():
        with display.Progress(9, "probe") as progress:
            progress.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "probe: 3/9 items when it was interrupted after" in capsys.readouterr().out


def test_progress_counts_from_many_threads():
    with display.Progress(4000, "call") as progress:
        threads = [threading.Thread(target=lambda: [progress.update() for _ in range(1000)]) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert progress.done == 4000


NOTEBOOK = """
import pandas as pd
from qatoolkit.core.display import Progress, is_live
with Progress(3, "probe", "questions") as progress:
    progress.update(3)
print("live:", is_live())
"""


def outputs_of(allow_stdin, cells):
    """The outputs of cells run in a real kernel by a client that allows input or does not."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    outputs = []
    try:
        for cell in cells:
            client.execute_interactive(
                cell, allow_stdin=allow_stdin, timeout=60, output_hook=lambda message: outputs.append(message)
            )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return [m["content"] | {"type": m["msg_type"]} for m in outputs if m["msg_type"] not in {"status", "execute_input"}]


def test_headless_kernel_gets_text_and_each_figure_once():
    figure = "from qatoolkit import figures\nfigures.kp_degree(pd.DataFrame({'degree': [1, 2, 2, 5]}))"
    outputs = outputs_of(False, [NOTEBOOK, figure])
    printed = "".join(o["text"] for o in outputs if o["type"] == "stream")
    assert "probe: 3/3 questions in" in printed
    assert "live: False" in printed
    assert "widget-view" not in json.dumps(outputs)
    assert [o["type"] for o in outputs if "image/png" in o.get("data", {})] == ["execute_result"]


def test_live_front_end_gets_a_widget_that_is_gone_at_the_end():
    outputs = outputs_of(True, [NOTEBOOK])
    types = [o["type"] for o in outputs]
    printed = "".join(o["text"] for o in outputs if o["type"] == "stream")
    assert "live: True" in printed
    assert "probe: 3/3 questions in" in printed
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs)
    assert types.count("comm_close") >= 1
    last = [o for o in outputs if o.get("transient", {}).get("display_id")][-1]
    assert last["data"] == {"text/plain": ""}  # a saved notebook has no widget to look for


def test_an_interrupt_and_an_error_that_says_what_to_do_are_one_line_in_a_notebook():
    cells = [
        "from qatoolkit.core.display import Interrupted\ndef deep(n):\n    return deep(n - 1) if n else 1 / 0",
        "try:\n    deep(30)\nexcept ZeroDivisionError:\n    raise Interrupted('probe was interrupted')",
        "from qatoolkit.run.store import MissingUpstream\nraise MissingUpstream('run notebook 02')",
    ]
    errors = [o for o in outputs_of(True, cells) if o["type"] == "error"]
    assert [o["traceback"] for o in errors] == [
        ["Interrupted: probe was interrupted"],
        ["MissingUpstream: run notebook 02"],
    ]


def test_facts_write_a_bound_in_the_unit_of_what_it_bounds_and_a_small_p_as_such():
    text = repr(display.facts({"difference": 0.4, "low": 0.0, "high": 0.8, "p_mcnemar": 4e-27, "wrong_before": 0.1751}))
    assert text.split() == [
        "difference", "+40.0", "low", "+0.0", "high", "+80.0", "p_mcnemar", "<", "0.001", "wrong_before", "17.5%",
    ]  # fmt: skip


def test_a_table_is_written_for_a_paper():
    shown = display.table(pd.DataFrame({"arm": ["a_b & 50%"], "difference": [-0.021], "n": [1234]}))
    latex = shown.to_latex()
    assert r"a\_b \& 50\%" in latex
    assert "$-$2.1 & 1,234" in latex
    assert r"\begin{tabular}{lrr}" in latex
    assert "difference (points)" in latex
