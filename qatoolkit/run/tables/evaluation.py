"""Tables of notebook 08: forms of prompts, agreement of scorers, changed answers, the suite of twelve."""

import warnings

import pandas as pd

from qatoolkit.core.stats import accuracy, paired_difference
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, exam_tables
from qatoolkit.run.store import Run


def guessing_accuracy(run: Run) -> dict[str, float]:
    """The accuracy of guessing on each exam with choices."""
    tables = exam_tables(run)
    return {name: float((1 / tables[name]["choices"].map(len)).mean()) for name in choice_exams(run)}


def accuracy_by_form(run: Run, exam: str | None = None) -> pd.DataFrame:
    """The base student on one exam (default: the first with choices) in each form of prompt: form, metric, n, accuracy,
    low, high, guessing accuracy."""
    from qatoolkit.evaluation.evaluate import evaluate
    from qatoolkit.evaluation.tasks import FORMS

    exam, rows = exam or choice_exams(run)[0], []
    for form in FORMS:
        with warnings.catch_warnings():  # lists of long choices exceed the student's positions, and are cut
            warnings.simplefilter("ignore", UserWarning)
            samples = evaluate(run.model(BASE), {exam: exam_tables(run)[exam]}, form=form, scorer="fast")
        row = {"form": form, "metric": samples["metric"].iloc[0]} | accuracy(samples).to_dict("records")[0]
        rows.append(row | {"guessing accuracy": 0.0 if form == "generative" else guessing_accuracy(run)[exam]})
    return pd.DataFrame(rows)


def scorer_agreement(run: Run, arm: str = "boostqa") -> pd.DataFrame:
    """The fast scorer beside lm-eval's own model on the multiple-choice exams: n, share of questions with the same
    answer, and the largest difference of a margin (nats)."""
    from qatoolkit.evaluation.evaluate import evaluate

    reported = choice_samples(run).query("arm == @arm")
    fast = evaluate(run.model(arm), {name: exam_tables(run)[name] for name in choice_exams(run)}, scorer="fast")
    fast, keys = fast.assign(exam=fast["task"]), ["exam", "id"]
    both = reported.merge(fast[[*keys, "given", "margin"]], on=keys, suffixes=("", "_fast"), validate="one_to_one")
    apart = (both["margin"] - both["margin_fast"]).abs()
    both = both.assign(same=both["given"] == both["given_fast"], apart=apart)
    found = both.groupby("exam", sort=False).agg(n=("id", "size"), same=("same", "mean"), apart=("apart", "max"))
    names = {"same": "same answer (share)", "apart": "largest margin difference (nats)"}
    return found.rename(columns=names).reset_index()


def changed_questions(run: Run, a: str = "boostqa", b: str = "base", n: int = 10) -> pd.DataFrame:
    """Exam questions that only one of two arms has right, the largest change of margin first: what each answered."""
    samples = choice_samples(run)
    return changed_between(run, *(samples[samples["arm"] == arm] for arm in (a, b)), (a, b), n)


def choice_samples(run: Run) -> pd.DataFrame:
    """What every arm answered on the exams with choices."""
    samples = run.read("evaluate").samples
    return samples[samples["exam"].isin(choice_exams(run))]


def changed_between(run: Run, one: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str], n: int) -> pd.DataFrame:
    """`changed_questions` for any two tables of samples on the exams of a run."""
    a, b = names
    both = one.merge(other[["exam", "id", "correct", "given", "margin"]], on=["exam", "id"], suffixes=("", "_b"))
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
    from qatoolkit.evaluation.suites import PAPER12

    return pd.read_csv(PAPER12)


def evaluated_tasks(samples: pd.DataFrame) -> pd.DataFrame:
    """What `evaluate` ran, one row per task: version, form, examples, prompts cut, metric, n, score, rows of the exam
    left out; with lm-eval's version and the seeds."""
    about = samples.attrs["evaluation"]
    seeds = ", ".join(f"{name} {seed}" for name, seed in about["seeds"].items())
    tasks = [
        {k: v for k, v in t.items() if k != "key"} | {"left_out": sum(t.get("left_out", {}).values())}
        for t in about["tasks"]
    ]
    return pd.DataFrame(tasks).assign(lm_eval=about["lm_eval"], scorer=about["scorer"], seeds=seeds)


def differences_by_difficulty(
    run: Run, pairs=(("boostqa", "base"), ("linkqa", "base"), ("linkqa", "boostqa"))
) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams by difficulty, with 95% bootstrap intervals."""
    samples, rows = choice_samples(run), []
    for level in DIFFICULTIES:
        part = samples[samples["difficulty"] == level]
        for a, b in pairs:
            pair = [part[part["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=run.profile.evaluate.bootstrap, seed=run.seed)
            rows.append({"difficulty": level, "a": a, "b": b} | found)
    return pd.DataFrame(rows)


def accuracy_by_arm(run: Run) -> pd.DataFrame:
    """One row per arm, from the summary: accuracy on every exam, tokens and FLOPs."""
    rows = []
    for arm, values in run.read("summary").summary["arms"].items():
        exams = {f"{name} accuracy": exam["accuracy"] for name, exam in values["exams"].items()}
        rows.append({"arm": arm} | exams | {"tokens": values["tokens"], "flops": values["flops"]})
    return pd.DataFrame(rows)
