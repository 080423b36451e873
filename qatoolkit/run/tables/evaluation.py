"""Tables of models: arms beside each other, prompt forms, agreement of scorers, changed answers, the suite of twelve."""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from qatoolkit.core.stats import accuracy, difference_over_seeds, paired_difference
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.evaluation.exams import evaluate_exams
from qatoolkit.run.lineage import cost_per_question
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, choice_tables, exam_tables, exams_to_evaluate
from qatoolkit.run.stages.evaluation import by_weakness
from qatoolkit.run.stages.training import arm_table
from qatoolkit.run.stages.variants import REFERENCE
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run


def guessing_accuracy(run: Run) -> dict[str, float]:
    """The accuracy of guessing on each exam with choices."""
    return {name: float((1 / table["choices"].map(len)).mean()) for name, table in choice_tables(run).items()}


def accuracy_by_form(run: Run, exam: str | None = None, n: int = 300) -> pd.DataFrame:
    """The base student on at most `n` questions of one exam (default: the first with choices) in each prompt form:
    form, metric, n, accuracy, low, high, guessing accuracy."""
    from qatoolkit.evaluation.evaluate import evaluate
    from qatoolkit.evaluation.tasks import FORMS

    if not (exam or choice_exams(run)):
        raise ValueError("no exam of this run has choices, so there are no prompt forms to compare")
    exam, rows = exam or choice_exams(run)[0], []
    questions, guessing = exam_tables(run)[exam], guessing_accuracy(run)
    questions = questions.sample(min(n, len(questions)), random_state=run.seed)
    for form in FORMS:
        with warnings.catch_warnings():  # lists of long choices exceed the student's positions and are cut
            warnings.simplefilter("ignore", UserWarning)
            samples = evaluate(run.model(BASE), {exam: questions}, form=form, scorer="fast")
        row = {"form": form, "metric": samples["metric"].iloc[0]} | accuracy(samples).to_dict("records")[0]
        rows.append(row | {"guessing accuracy": 0.0 if form == "generative" else guessing[exam]})
    return pd.DataFrame(rows)


def scorer_agreement(run: Run, arm: str | None = None, n: int = 50) -> pd.DataFrame:
    """The fast scorer beside lm-eval's own on the first `n` questions of every multiple-choice exam, for one arm
    (default: the main one): n, share of questions with the same answer, and the largest difference between margins
    (nats)."""
    model, keys = run.model(arm or run.profile.main_arm), ["exam", "id"]
    choice = choice_exams(run)
    exams = [replace(exam, limit=min(n, exam.limit or n)) for exam in exams_to_evaluate(run) if exam.name in choice]
    fast, hf = (evaluate_exams(model, exams, scorer=scorer)[[*keys, "given", "margin"]] for scorer in ("fast", "hf"))
    both = fast.merge(hf, on=keys, suffixes=("", "_hf"), validate="one_to_one")
    gap = (both["margin"] - both["margin_hf"]).abs()
    both = both.assign(same=both["given"] == both["given_hf"], gap=gap)
    found = both.groupby("exam", sort=False).agg(n=("id", "size"), same=("same", "mean"), gap=("gap", "max"))
    names = {"same": "same answer (share)", "gap": "largest margin difference (nats)"}
    return found.rename(columns=names).reset_index()


def changed_questions(run: Run, a: str | None = None, b: str = BASE, n: int = 10) -> pd.DataFrame:
    """Exam questions that only one of two arms (default: the main one and the base) answers right, with both answers,
    the largest change of margin first."""
    samples, a = choice_samples(run), a or run.profile.main_arm
    return changed_between(run, *(samples[samples["arm"] == arm] for arm in (a, b)), (a, b), n)


def choice_samples(run: Run) -> pd.DataFrame:
    """The answers of every arm on the exams with choices."""
    samples = run.read("evaluate").samples
    return samples[samples["exam"].isin(choice_exams(run))]


def changed_between(
    run: Run, first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str], n: int
) -> pd.DataFrame:
    """`changed_questions` for any two tables of samples on the exams of a run."""
    a, b = names
    both = first.merge(second[["exam", "id", "correct", "given", "margin"]], on=["exam", "id"], suffixes=("", "_b"))
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
    """What `evaluate` ran, one row per task: version, form, examples, prompts cut, metric, n, score, exam rows left
    out; with lm-eval's version and the seeds."""
    about = samples.attrs["evaluation"]
    seeds = ", ".join(f"{name} {seed}" for name, seed in about["seeds"].items())
    tasks = [
        {k: v for k, v in t.items() if k != "key"}
        | {"left_out": sum(t.get("left_out", {}).values()), "not_asked": len(t.get("not_asked") or ())}
        for t in about["tasks"]
    ]
    return pd.DataFrame(tasks).assign(lm_eval=about["lm_eval"], scorer=about["scorer"], seeds=seeds)


def differences_by_difficulty(run: Run) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams by difficulty, with 95% bootstrap intervals: the
    pairs of the profile's `compare` without the controls."""
    samples, rows, profile = choice_samples(run), [], run.profile
    data = [
        BASE,
        *(
            arm
            for arm, sets in profile.arms.items()
            if any(not profile.data[s].dials for s in sets if s in profile.data)
        ),
    ]
    for level in DIFFICULTIES:
        part = samples[samples["difficulty"] == level].drop_duplicates(["arm", "id"])
        for a, b in (pair for pair in profile.compare if set(pair) <= set(data)):
            pair = [part[part["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=run.profile.evaluate.bootstrap, seed=run.seed)
            rows.append({"difficulty": level, "a": a, "b": b} | found)
    return pd.DataFrame(rows)


def training_seeds(run: Run) -> pd.DataFrame:
    """The difference between the main arm and the control for each training seed (`ablation_seeds` of the profile): one
    row per part (weak, all) and seed, then the mean over seeds with its 95% interval over the questions, over the
    seeds, and over both (`core.stats.difference_over_seeds`). No rows for one seed, or without a control."""
    columns = ["on", "seed", "interval", "difference", "low", "high", "n"]
    arm, control, rows = run.profile.main_arm, run.profile.control, []
    if run.profile.ablation_seeds == 1 or control in (None, arm):
        return pd.DataFrame(columns=columns)
    resampled = {"resamples": run.profile.evaluate.bootstrap, "seed": run.seed}
    samples = run.read("ablations").samples
    samples = samples[samples["ablation"] == REFERENCE]
    for on, part in by_weakness(samples, weak_parts(run)).items():
        if on == "other":
            continue
        pairs = []
        for seed, of_seed in part.groupby("seed"):
            pairs.append([of_seed[of_seed["arm"] == name] for name in (arm, control)])
            rows.append(
                {"on": on, "seed": str(seed), "interval": "questions"} | paired_difference(*pairs[-1], **resampled)
            )
        mean = difference_over_seeds(pairs, **resampled)
        for interval, prefix in (("questions", "questions_"), ("seeds", "seeds_"), ("both", "")):
            about = {"on": on, "seed": f"mean of {len(pairs)}", "interval": interval}
            rows.append(about | mean | {end: mean[f"{prefix}{end}"] for end in ("low", "high")})
    return pd.DataFrame(rows)[columns]


def arms(run: Run, priced_as: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What each arm read and reached, one row each, the best in weak cells first: questions, epochs (how often they
    were read), usd per accepted question (`priced_as` as in `qt.cost_per_question`; null where a price is unknown), and
    accuracy on the exams with choices: in weak cells with its Wilson interval, in other cells, over all."""
    made = any(run.manifest(name) for name in run.profile.data)
    costs = cost_per_question(run, priced_as) if made else pd.DataFrame(columns=["dataset", "usd", "accepted"])
    costs = costs.groupby("dataset")[["usd", "accepted"]].agg(lambda x: x.sum(skipna=False))
    mixed, read = run.read("midtrain").mixtures.set_index("arm"), []
    for arm in (BASE, *run.profile.arms):
        sets = run.profile.arms.get(arm, ())
        paid = costs.loc[[name for name in sets if name in costs.index]].sum(skipna=False)
        row = {"arm": arm, "questions": len(arm_table(run, arm)) if sets else 0, "epochs": mixed["epochs"].get(arm)}
        read.append(row | {"usd_per_question": paid["usd"] / paid["accepted"] if paid["accepted"] else None})
    table = pd.DataFrame(read).astype({"epochs": float, "usd_per_question": float})
    scores = arm_scores(run).drop(
        columns=[f"{on} accuracy {end}" for on in ("other", "all") for end in ("low", "high")]
    )
    table = table.merge(scores, on="arm", how="left")
    return table.sort_values("weak accuracy", ascending=False, kind="stable", ignore_index=True)


def arm_scores(run: Run) -> pd.DataFrame:
    """Accuracy with Wilson interval of every arm on the exams with choices, in weak cells, in other cells and over all,
    the best in weak cells first."""
    split = by_weakness(choice_samples(run).drop_duplicates(["arm", "id"]), weak_parts(run))
    scores = []
    for on, part in split.items():
        names = {"accuracy": f"{on} accuracy"} | {end: f"{on} accuracy {end}" for end in ("low", "high")}
        scores.append(accuracy(part, ["arm"]).set_index("arm")[list(names)].rename(columns=names))
    table = pd.concat(scores, axis=1).rename_axis("arm").reset_index()
    return table.sort_values("weak accuracy", ascending=False, kind="stable", ignore_index=True)


def accuracy_by_arm(run: Run) -> pd.DataFrame:
    """One row per arm: accuracy on every exam, tokens and FLOPs."""
    rows, scores = [], run.read("evaluate").exams
    for arm, trained in ({BASE: run.read("base").training} | run.read("midtrain").training).items():
        exams = {f"{row.exam} accuracy": row.accuracy for row in scores[scores["arm"] == arm].itertuples()}
        rows.append({"arm": arm} | exams | {"tokens": trained["tokens"], "flops": trained["flops"]})
    return pd.DataFrame(rows)
