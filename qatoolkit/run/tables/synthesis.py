"""Tables of synthesis: the probe, the plan, the questions written and refined, and their cost."""

import pandas as pd

from qatoolkit.core.settings import replace
from qatoolkit.core.stats import accuracy, wilson
from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.run.cost import estimate
from qatoolkit.run.stages.data import probe_questions
from qatoolkit.run.stages.weakness import weak_cells
from qatoolkit.run.store import Run
from qatoolkit.synthesis.budget import RULES, plan_budget
from qatoolkit.synthesis.linkqa import merge_table
from qatoolkit.synthesis.write import attempts, degraded

_PARTS = {"discipline": STEM, "difficulty": HIGH}


def spend_estimate(run: Run) -> pd.DataFrame:
    """Requests, tokens, US dollars and hours of everything that the run's profile sends to its teachers, by stage and
    task (`cost.requests`), including requests already sent."""
    seeds = run.read("seeds").seeds if run.manifest("seeds") else None
    with run.ledger() as ledger:
        return estimate(run.profile, ledger, seeds)


def probe_summary(run: Run) -> pd.DataFrame:
    """The probe pooled over STEM and the rest, and over H1-H3 and H4-H5: n, accuracy with interval, mean margin in
    nats."""
    samples = run.read("probe").samples
    field = samples["discipline"].isin(STEM).map({True: "STEM", False: "other"})
    level = samples["difficulty"].isin(HIGH).map({True: "H4-H5", False: "H1-H3"})
    keyed = samples.assign(field=field, level=level)
    parts = [keyed, keyed.assign(level="all"), keyed.assign(field="all"), keyed.assign(field="all", level="all")]
    pooled = pd.concat(parts, ignore_index=True)
    margin = pooled.groupby(["field", "level"])["margin"].mean().rename("margin").reset_index()
    return accuracy(pooled, ["field", "level"]).merge(margin).sort_values(["field", "level"], ignore_index=True)


def missed_questions(run: Run, n: int = 8) -> pd.DataFrame:
    """The probe's questions that the base model missed by the largest margin (nats), with the answer it preferred."""
    samples = run.read("probe").samples
    samples = samples[~samples["correct"].astype(bool)].nsmallest(n, "margin")
    questions = probe_questions(run)[["id", "question", "answer"]].drop_duplicates("id")
    found = samples.merge(questions, on="id").rename(columns={"given": "model says"})
    return found[["discipline", "difficulty", "question", "answer", "model says", "margin"]]


def plan_shares(run: Run) -> pd.DataFrame:
    """The plan of the profile's rule beside those of all other rules and of other targets: questions, cells that get
    some, shares of the budget in STEM and at H4-H5, and the largest cell. A rule that gives no cell of this grid any
    weight, as gain before the first round, falls back on root."""
    grid, settings = run.read("plan").budget, run.profile.plan
    variants = {f"rule {settings.rule}, target {settings.target:g}": {}}
    variants |= {f"if the rule were {rule}": {"rule": rule} for rule in RULES if rule != settings.rule}
    for target in (0.5, 0.9):
        if len(weak_cells(grid, replace(settings, target=target))):
            variants[f"if the target were {target:g}"] = {"target": target}
    rows = []
    for name, dials in variants.items():
        plan = plan_budget(grid, replace(settings, **dials))
        if (used := plan["rule"].iloc[0]) != dials.get("rule", settings.rule):
            name += f" (as {used})"
        budget, top = plan["budget"], plan.loc[plan["budget"].idxmax()]
        largest, total = f"{top['discipline']} {top['difficulty']} ({top['budget']})", budget.sum()
        shares = [budget[plan[column].isin(part)].sum() / total for column, part in _PARTS.items()]
        rows.append((name, int(total), int((budget > 0).sum()), *shares, largest))
    return pd.DataFrame(rows, columns=["plan", "questions", "cells", "STEM share", "H4-H5 share", "largest cell"])


def rule_plans(run: Run) -> pd.DataFrame:
    """What every budget rule would have spent in the last round of the first training seed, with gain fitted from the
    rounds before it: rule (and the rule it falls back on), discipline, difficulty, accuracy, deficit, budget."""
    past = run.read("rounds").cells
    past = past[past["seed"] == past["seed"].iloc[0]]
    grid, past = (past[past["round"].eq(past["round"].max()) == last] for last in (True, False))
    plans = []
    for rule in RULES:
        plan = plan_budget(grid, replace(run.profile.plan, rule=rule), past)
        used = plan["rule"].iloc[0]
        plans.append(plan.assign(rule=rule if used == rule else f"{rule} (as {used})"))
    columns = ["rule", "discipline", "difficulty", "accuracy", "deficit", "budget"]
    return pd.concat(plans, ignore_index=True)[columns]


def disputes(run: Run, name: str = "boostqa", n: int = 8) -> pd.DataFrame:
    """Answers on which the two teachers differed: the first, the second, and the one that further samples decided on,
    if any."""
    stored = run.read(name)
    columns = ["question", "first_answer", "second_answer", "answer", "decided"]
    unresolved = stored.rejects.query("reason == 'unresolved'")
    unresolved = unresolved.assign(first_answer=unresolved["answer"], answer=None, decided="no majority")
    tables = [rows for rows in (stored.questions, unresolved) if "second_answer" in rows]
    if not tables:
        return pd.DataFrame(columns=columns)
    rows = pd.concat([table[table["decided"] != "agreed"].reindex(columns=columns) for table in tables])
    sample = rows.sample(frac=1, random_state=0).groupby("decided").head(-(-n // 3))
    return sample.sort_values("decided", kind="stable").head(n).reset_index(drop=True)


def synthesis_counts(run: Run, name: str) -> dict:
    """Questions of a data set asked for, written, kept, and rejected by reason."""
    stored = run.read(name)
    kept, reasons = stored.questions, stored.rejects["reason"].value_counts()
    return {
        "asked for": int(run.read("plan").budget["budget"].sum()),
        "written and labelled": len(stored.made),
        "kept after refinement": len(kept),
        "STEM share": float(kept["discipline"].isin(STEM).mean()),
        "H4-H5 share": float(kept["difficulty"].isin(HIGH).mean()),
    } | {f"rejected: {reason}": int(n) for reason, n in reasons.items()}


def seeds_and_dataset(run: Run, name: str) -> pd.DataFrame:
    """The annotated seeds, then a synthetic data set, with a column `dataset`."""
    seeds = run.read("annotate").seeds.assign(dataset="seeds")
    return pd.concat([seeds, run.read(name).questions.assign(dataset=name)])


def degradation(run: Run, name: str = "boostqa") -> pd.DataFrame:
    """Questions asked for at H4 and H5: how many, and the share labelled lower at the first attempt and at the last."""
    stored, rows = run.read(name), []
    for level in HIGH:
        final, first = attempts(stored.made, stored.rejects, [level])
        row = {"asked": level, "first n": len(first), "degraded at first (share)": degraded(first).mean()}
        rows.append(row | {"final n": len(final), "degraded in the end (share)": degraded(final).mean()})
    return pd.DataFrame(rows)


def decisions(run: Run, name: str = "boostqa") -> pd.DataFrame:
    """How refinement decided each answer: agreed at once, first, refined or other answer by majority, or rejected."""
    stored = run.read(name)
    if "decided" not in stored.questions:
        return pd.DataFrame({"decided": ["refinement is switched off"], "questions": [len(stored.questions)]})
    counts = stored.questions["decided"].value_counts()
    counts["rejected, no majority"] = int((stored.rejects["reason"] == "unresolved").sum())
    return counts.rename("questions").rename_axis("decided").reset_index()


def refinement_by_error_rate(run: Run) -> pd.DataFrame:
    """Wrong answers at each error rate of the offline synthesiser: teacher_error_rate, stage (before, second answer,
    after), wrong, low, high (Wilson 95%), n.

    A stage without answers has no row, such as the second answer if refinement is off. Empty for a real teacher."""
    rows = []
    for found in run.read("error_rates").answers.to_dict("records"):
        for stage, suffix in (("before", "before"), ("second answer", "second"), ("after", "after")):
            share, n = found[f"wrong_{suffix}"], found["n" if suffix == "before" else f"n_{suffix}"]
            if n:
                rows.append((found["teacher_error_rate"], stage, share, *wilson(round(share * n), n), n))
    return pd.DataFrame(rows, columns=["teacher_error_rate", "stage", "wrong", "low", "high", "n"])


def spend(run: Run) -> pd.DataFrame:
    """The run's requests, tokens and cost in US dollars by model and stage, over all sessions."""
    with run.ledger() as ledger:
        return ledger.spend(run.billed_to)


def merges(run: Run) -> pd.DataFrame:
    """Near-identical knowledge points of the annotated seeds, with the decision on each pair (`linkqa.merge_table`)."""
    return merge_table(run.read("annotate").seeds, run.profile.linkqa)
