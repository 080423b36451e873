"""Tables about evaluation that notebooks show: forms of asking, agreement of scorers, changed answers, the suite of twelve."""

import warnings

import pandas as pd

from qatoolkit.evaluate import accuracy, evaluate
from qatoolkit.exam_tasks import FORMS
from qatoolkit.stages import exam_tables
from qatoolkit.store import Run
from qatoolkit.suites import PAPER12

OPEN = "textbook_math"


def forms(run: Run, exam: str = "textbook_en") -> pd.DataFrame:
    """The base student on one exam in each form of asking, with what guessing gives: form, metric, n, accuracy, low, high."""
    table = exam_tables(run)[exam]
    rows = []
    for form in FORMS:
        with warnings.catch_warnings():  # lists of long choices pass the student's positions, and are cut
            warnings.simplefilter("ignore", UserWarning)
            samples = evaluate(run.read("base").model, {exam: table}, form=form, scorer="fast")
        guessing = 0.0 if form == "generative" else float((1 / table["choices"].map(len)).mean())
        rows.append({"form": form, "metric": samples["metric"].iloc[0]} | accuracy(samples).iloc[0].to_dict())
        rows[-1]["guessing accuracy"] = guessing
    return pd.DataFrame(rows)


def scorers(run: Run, arm: str = "boostqa") -> pd.DataFrame:
    """The fast scorer beside lm-eval's own model on the multiple-choice exams: n, share of questions answered alike, and the
    largest difference of a margin (nats)."""
    reported = run.read("evaluate").samples
    reported = reported[(reported["arm"] == arm) & (reported["exam"] != OPEN)]
    names = list(reported["exam"].unique())
    fast = evaluate(getattr(run.read("midtrain"), arm), "textbook", names, run=run, scorer="fast")
    both = reported.merge(
        fast, left_on=["exam", "id"], right_on=["task", "id"], suffixes=("", "_fast"), validate="one_to_one"
    )
    both["same"] = both["given"] == both["given_fast"]
    both["apart"] = (both["margin"] - both["margin_fast"]).abs()
    found = both.groupby("exam", sort=False).agg(
        n=("id", "size"), same=("same", "mean"), apart=("apart", "max")
    )
    return found.reset_index().rename(
        columns={"same": "same answer (share)", "apart": "largest margin difference (nats)"}
    )


def changed(run: Run, a: str = "boostqa", b: str = "base", n: int = 10) -> pd.DataFrame:
    """Exam questions that only one of two arms has right, the widest change of margin first: what each answered."""
    samples = run.read("evaluate").samples
    one, other = (samples[(samples["arm"] == arm) & (samples["exam"] != OPEN)] for arm in (a, b))
    both = one.merge(
        other[["exam", "id", "correct", "given", "margin"]], on=["exam", "id"], suffixes=("", "_b")
    )
    both = both[both["correct"] != both["correct_b"]]
    questions = pd.concat([t.assign(exam=name) for name, t in exam_tables(run).items()])
    both = both.merge(questions[["exam", "id", "question", "answer"]], on=["exam", "id"])
    both["right"] = both["correct"].map({True: a, False: b})
    both["change"] = both["margin"] - both["margin_b"]
    both = both.sort_values("change", key=abs, ascending=False).head(n)
    columns = {"given": f"{a} says", "given_b": f"{b} says", "change": "change of margin (nats)"}
    shown = ["exam", "discipline", "difficulty", "question", "answer", "given", "given_b", "right", "change"]
    return both[shown].rename(columns=columns).reset_index(drop=True)


def paper12() -> pd.DataFrame:
    """The twelve benchmarks of our reading: lm-eval task, number of examples, metric and filter, and why."""
    return pd.read_csv(PAPER12)


def evaluated(samples: pd.DataFrame) -> pd.DataFrame:
    """What `evaluate` ran, a row per task: version, form, examples, prompts cut, metric, n, score, rows of the exam left out; with
    lm-eval's version and the seeds."""
    about = samples.attrs["evaluation"]
    seeds = ", ".join(f"{name} {seed}" for name, seed in about["seeds"].items())
    tasks = [t | {"left_out": sum(t.get("left_out", {}).values())} for t in about["tasks"]]
    return pd.DataFrame(tasks).assign(lm_eval=about["lm_eval"], scorer=about["scorer"], seeds=seeds)
