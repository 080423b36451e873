"""Findings: what each stage of a run showed, in sentences with number, 95% interval, n and what it means.

Every sentence is computed from saved tables, and says of a difference only what its interval shows."""

from collections.abc import Callable, Iterator

import pandas as pd

from qatoolkit.core.display import MUTED, Rich, escape
from qatoolkit.core.stats import accuracy, difference_of_shares
from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.figures.style import big, power
from qatoolkit.run.profiles import BASE
from qatoolkit.run.store import Run
from qatoolkit.run.tables.evaluation import training_seeds
from qatoolkit.run.tables.seeds import agreement
from qatoolkit.synthesis.write import degradation

TRIAL = "The smoke profile only shows that everything runs: its student is too small for its numbers to mean anything."


def findings(run: Run, *stages: str) -> Rich:
    """What stages showed (`seeds`, `annotate`, `probe`, `plan`, a data set, `curate`, `midtrain`, `evaluate`, `scaling`,
    `ablations`), or without a name all that are done, as sentences.

    Accuracies in percent with Wilson intervals, differences in points, paired over questions unless it says otherwise.
    ValueError for a stage without findings; MissingUpstream for one that is not done."""
    known = list_findings(run)
    for stage in stages:
        if stage not in known:
            raise ValueError(f"no findings of {stage!r}; choose from {', '.join(known)}")
    chosen = stages or [name for name in known if run.manifest(name)]
    lines = [line for name in chosen for line in known[name]()]
    note = [TRIAL] if run.profile.name == "smoke" and chosen else []
    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    html += "".join(f'<p style="{MUTED}">{escape(line)}</p>' for line in note)
    return Rich(f'<div style="max-width:900px">{html}</div>', "\n".join(lines + note))


def list_findings(run: Run) -> dict[str, Callable[[], Iterator[str]]]:
    """By stage, in the order of the flow, what yields its sentences."""
    stages = {"seeds": _seeds, "annotate": _annotate, "probe": _probe, "plan": _plan}
    after = {
        "curate": _curate,
        "midtrain": _midtrain,
        "evaluate": _evaluate,
        "scaling": _scaling,
        "ablations": _ablations,
    }
    found = {name: lambda make=make: make(run) for name, make in (stages | after).items()}
    data = {name: lambda name=name: _data_set(run, name) for name in run.profile.data}
    return {name: (found | data)[name] for name in (*stages, *data, *after)}


def _seeds(run: Run):
    quality = run.read("seeds").quality
    faults = quality[(quality["reason"] != "accepted") & quality["rows_in"].gt(0)]
    rows = int(quality.drop_duplicates("source")["rows_in"].sum())
    rejected = int(faults["count"].sum())
    yield (
        f"{rows - rejected:,} of {rows:,} rows became seed questions"
        f"{f'; {rejected:,} were rejected ({_by_reason(faults)}).' if rejected else '.'}"
    )


def _annotate(run: Run):
    stored = run.read("annotate")
    yield f"{len(stored.seeds):,} of {len(stored.seeds) + len(stored.rejects):,} seeds are labelled."
    found = agreement(run).query("language == 'all'").set_index("label")
    if not found["n"].max():
        yield "How often the labels are right can't be told here: compare some with your own (`qt.agreement`)."
        return
    each = [f"{label} {_percent(row.accuracy)} (kappa {row.kappa:.2f})" for label, row in found.iterrows()]
    yield f"Of the labels by construction the annotator has right: {', '.join(each)}; n {found['n'].max():,}."


def _probe(run: Run):
    samples = run.read("probe").samples
    guess = f"; guessing would answer {_percent(samples['chance'].mean())}" if "chance" in samples else ""
    yield f"The base student answers {_share(samples)} of the probe's questions{guess}."
    parts = {
        ("STEM", "the other disciplines"): samples["discipline"].isin(STEM),
        ("H4 and H5", "H1 to H3"): samples["difficulty"].isin(HIGH),
    }
    for (one, other), inside in parts.items():
        if inside.any() and not inside.all():
            a, b = samples[inside], samples[~inside]
            apart = difference_of_shares(int(a["correct"].sum()), len(a), int(b["correct"].sum()), len(b))
            told = {"a gain": f"stronger at {one}", "a loss": f"weaker at {one}"}.get(_meaning(apart), "not told apart")
            yield f"{one}: {_share(a)}; {other}: {_share(b)}. The difference is {_points(apart)}, unpaired: {told}."


def _plan(run: Run):
    grid, plan, settings = run.read("probe").cells, run.read("plan"), run.profile.plan
    enough, planned = grid[grid["n"] >= settings.low_n], plan.targeted
    above = " above chance" if settings.above_chance else ""
    yield (
        f"{len(plan.weak)} of the {len(enough)} cells with at least {settings.low_n} questions are weak: below the target of "
        f"{_percent(settings.target)}{above}."
    )
    if not settings.targeted or not planned["budget"].sum():
        yield "The budget is spread evenly." if not settings.targeted else "No cell gets a budget."
        return
    shares = [planned.loc[planned[c].isin(part), "budget"].sum() / planned["budget"].sum()
              for c, part in (("discipline", STEM), ("difficulty", HIGH))]  # fmt: skip
    top = planned.loc[planned["budget"].idxmax()]
    yield (
        f"They share {planned['budget'].sum():,} questions, {_percent(shares[0])} of them in STEM and "
        f"{_percent(shares[1])} at H4 and H5; most go to {top['discipline'].replace('_', ' ')} {top['difficulty']} "
        f"({top['budget']:,})."
    )


def _data_set(run: Run, name: str):
    stored = run.read(name)
    rejects = stored.rejects["reason"].value_counts().rename_axis("reason").reset_index(name="count")
    yield (
        f"{name}: {len(stored.questions):,} questions were accepted of {len(stored.made):,} written"
        f"{f'; rejected along the way: {_by_reason(rejects)}.' if len(rejects) else '.'}"
    )
    if "asked_difficulty" in stored.made and (fell := degradation(stored.made))["n"]:
        yield (
            f"Of {fell['n']:,} asked for at H4 or H5, {_percent(fell['degraded'])} are labelled lower after the second "
            "attempt; they are kept under their label."
        )
    wrong = stored.refinement if "refinement" in stored else {}
    if wrong.get("wrong_before") is not None and wrong.get("wrong_after") is not None:
        yield (
            f"Refinement lowers the share of wrong answers from {_percent(wrong['wrong_before'])} to "
            f"{_percent(wrong['wrong_after'])} (against the truth by construction, n {wrong.get('n', len(stored.made)):,})."
        )
    if "diagnostics" in stored:
        walk = stored.diagnostics.iloc[0]
        yield (
            f"{walk['paths']:,.0f} walks of {walk['mean_length']:.1f} knowledge points reach {_percent(walk['coverage'])} of "
            f"the linked ones and {walk['distinct_seeds']:,.0f} seeds; their visits follow popularity with a rank correlation "
            f"of {walk['spearman']:.2f}."
        )


def _curate(run: Run):
    report = run.read("curate").report
    for name, rows in report[report["outcome"] != "flagged"].groupby("dataset", sort=False):
        kept, lost = rows[rows["outcome"] == "kept"]["rows"].sum(), rows[rows["outcome"] == "rejected"]
        why = _by_reason(lost.groupby("reason", as_index=False)["rows"].sum().rename(columns={"rows": "count"}))
        yield f"{name}: {kept:,} of {kept + lost['rows'].sum():,} questions may be trained on{f'; removed: {why}.' if why else '.'}"


def _midtrain(run: Run):
    mixed = run.read("midtrain").mixtures
    tokens = (mixed["qa"] + mixed["general"]).median()
    read = [f"{row.arm} {row.epochs:.1f} times" for row in mixed.itertuples() if row.qa]
    yield f"Each of {len(mixed)} arms read {big(tokens)} tokens from the same base; its questions: {', '.join(read)}."


def _evaluate(run: Run):
    stored = run.read("evaluate")
    table = stored.comparisons.dropna(subset="difference").set_index(["a", "b", "on"])
    controls = [BASE, *(arm for arm, sets in run.profile.arms.items() if not sets)]
    for a, b in dict.fromkeys((a, b) for a, b, _ in table.index if b in controls):
        on = {part: table.loc[(a, b, part)] for part in ("weak", "strong", "all") if (a, b, part) in table.index}
        each = [f"{_points(row)} {_WHERE[part]} ({_meaning(row)})" for part, row in on.items()]
        yield f"{a} beside {b.replace('_', ' ')}: {', '.join(each)}."
    main = stored.gains_by_blind
    main = main[(main["a"] == run.profile.main_arm) & (main["b"] == BASE) & (main["blind"] == "wrong")]
    for row in main.to_dict("records"):
        yield (
            f"In weak cells where a reader of the arm's answers alone is wrong, {row['a']} gains {_points(row)}: "
            f"{'knowledge, not how common answers are' if row['low'] > 0 else 'no knowledge is shown there'}."
        )
    for row in (
        stored.general[stored.general["arm"] == run.profile.main_arm].dropna(subset="difference").to_dict("records")
    ):
        yield (
            f"Held-out general text takes {row['arm']} {row['difference']:+.3f} bits per byte more than the base "
            f"({row['low']:+.3f} to {row['high']:+.3f}, {row['documents']:,} documents; less is better)."
        )


def _scaling(run: Run):
    for axis, points in run.read("scaling").points.groupby("axis", sort=False):
        ends, write = (
            points[points["x"].isin([points["x"].min(), points["x"].max()])],
            power if "flops" in axis else big,
        )
        said = []
        for x, pair in ends.groupby("x"):
            base, arm = (pair[pair["arm"].eq(BASE) == is_base].iloc[0] for is_base in (True, False))
            right = [round(row["accuracy"] * row["n"]) for row in (arm, base)]
            apart = difference_of_shares(right[0], int(arm["n"]), right[1], int(base["n"]))
            said.append(f"{_points(apart)} at {write(x)}")
        yield f"{axis.replace('_', ' ')}: {arm['arm']} beside the base it starts from {' and '.join(said)}, unpaired."


def _ablations(run: Run):
    table = run.read("ablations").ablations
    weak = table[table["on"] == "weak"].dropna(subset="difference") if len(table) else table
    told = weak[weak["p_holm"] < 0.05] if len(weak) else weak
    each = [f"{row['ablation']} {_points(row)}" for row in told.to_dict("records")]
    if len(weak):
        yield (
            f"Of {len(weak)} changed settings, {len(told)} move the accuracy in weak cells (Holm-corrected p below 0.05"
            f"{': ' + '; '.join(each) if each else ''}); the others can't be told from no change with n "
            f"{weak['n'].max():,.0f}."
        )
    for row in training_seeds(run).query("on == 'weak' and seed.str.startswith('mean')").to_dict("records"):
        yield f"Over training seeds ({row['seed']}), {run.profile.main_arm} beside its control: {_points(row)} in weak cells."


_WHERE = {"weak": "in weak cells", "strong": "in the others", "all": "over all"}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _share(samples: pd.DataFrame) -> str:
    found = accuracy(samples).iloc[0]
    return (
        f"{_percent(found['accuracy'])} ({100 * found['low']:.1f} to {100 * found['high']:.1f}, n {int(found['n']):,})"
    )


def _points(found) -> str:
    """A difference with its interval and n, for example +28.6 points (22.1 to 35.4, n 308)."""
    middle, low, high = (f"{100 * found[k]:.1f}".replace("-", "−") for k in ("difference", "low", "high"))
    return f"{'' if middle[0] == '−' else '+'}{middle} points ({low} to {high}, n {int(found['n']):,})"


def _meaning(found) -> str:
    """What an interval shows of a difference."""
    return "a gain" if found["low"] > 0 else "a loss" if found["high"] < 0 else "not told apart"


def _by_reason(counts: pd.DataFrame, most: int = 3) -> str:
    """Counts by reason, the most frequent first."""
    ranked = counts.groupby("reason")["count"].sum().sort_values(ascending=False, kind="stable")
    rest = f", other {ranked.iloc[most:].sum():,}" if len(ranked) > most else ""
    return ", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in ranked.iloc[:most].items()) + rest
