"""Findings: what each stage of a run showed, in sentences with number, 95% interval, n and what it means.

Every sentence is computed from saved tables, and claims of a difference only what its interval shows."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from qatoolkit.core.display import MUTED, Rich, escape
from qatoolkit.core.stats import CELL, difference_of_shares, wilson
from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.evaluation.probe import UNLABELLED
from qatoolkit.figures.style import power, short_count, signed
from qatoolkit.run.profiles import BASE
from qatoolkit.run.store import Run
from qatoolkit.run.tables.evaluation import training_seeds
from qatoolkit.run.tables.measured import difficulty_agreement
from qatoolkit.run.tables.seeds import agreement
from qatoolkit.run.tables.steps import survival
from qatoolkit.synthesis.budget import UNIFORM
from qatoolkit.synthesis.write import degradation

TRIAL = "The smoke profile only shows that everything runs: its student is too small for its numbers to mean anything."


def findings(run: Run, *stages: str) -> Rich:
    """What stages showed, as sentences: `seeds`, `annotate`, `probe`, `pass_rates`, `plan`, a data set, `survival` of
    the main one, `curate`, `midtrain`, `evaluate`, `scaling`, `ablations`, `rounds`, `attribution-*`; without a name,
    every stage that is done.

    Accuracies in percent with Wilson intervals, differences in points, paired over questions unless stated otherwise.
    ValueError for a stage without findings; MissingUpstream for one that is not done."""
    available = list_findings(run)
    for stage in stages:
        if stage not in available:
            raise ValueError(f"no findings of {stage!r}; choose from {', '.join(available)}")
    stage_of = {"survival": run.profile.main_set}
    chosen = stages or [name for name in available if run.manifest(stage_of.get(name, name))]
    lines = [line for name in chosen for line in available[name]()]
    note = [TRIAL] if run.profile.name == "smoke" and chosen else []
    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    html += "".join(f'<p style="{MUTED}">{escape(line)}</p>' for line in note)
    return Rich(f'<div style="max-width:900px">{html}</div>', "\n".join(lines + note))


def list_findings(run: Run) -> dict[str, Callable[[], Iterator[str]]]:
    """The function that yields a stage's sentences, by stage in the order of the flow."""
    before = {"seeds": _seeds, "annotate": _annotate, "probe": _probe, "pass_rates": _pass_rates, "plan": _plan}
    data = {name: partial(_data_set, name=name) for name in run.profile.data}
    after = {
        "survival": _survivors,
        "curate": _curate,
        "midtrain": _midtrain,
        "evaluate": _evaluate,
        "scaling": _scaling,
        "ablations": _ablations,
        "rounds": _rounds,
    }
    traced = {name: partial(_attribution, name=name) for name in run.pointers() if name.startswith("attribution-")}
    return {name: partial(write, run) for name, write in (before | data | after | traced).items()}


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
    stored, seeds = run.read("annotate"), run.read("seeds").seeds
    yield f"{len(stored.seeds):,} of {len(seeds):,} seeds are labelled."
    found = agreement(run).query("language == 'all'").dropna(subset=["accuracy", "kappa"])
    if found.empty:
        yield "How often the labels are right is unknown here: compare some with your own (`qt.agreement`)."
        return
    labels = [f"{row.label} {_counted(row.accuracy, row.n)}, kappa {row.kappa:.2f}" for row in found.itertuples()]
    yield f"The annotator agrees with the labels by construction: {'; '.join(labels)}."


def _probe(run: Run):
    samples = run.read("probe").samples
    guess = f"; guessing would answer {_percent(samples['chance'].mean())}" if "chance" in samples else ""
    yield f"The base student answers {_share(samples)} of the probe's questions{guess}."
    parts = {"discipline": ("STEM", "the other disciplines", STEM), "difficulty": ("H4 and H5", "H1 to H3", HIGH)}
    for column, (inside, outside, values) in parts.items():
        known = samples[samples[column] != UNLABELLED]
        a, b = (known[known[column].isin(values) == wanted] for wanted in (True, False))
        if len(a) and len(b):
            difference = difference_of_shares(int(a["correct"].sum()), len(a), int(b["correct"].sum()), len(b))
            meaning = _meaning(difference, f"stronger at {inside}", f"weaker at {inside}")
            yield (
                f"{inside}: {_share(a)}; {outside}: {_share(b)}. The difference is {_points(difference)}, unpaired: "
                f"{meaning}."
            )


FORMS = {"choices": "questions with choices", "open": "open questions"}


def _pass_rates(run: Run):
    readings = [f"higher levels are passed {way} often" for way in ("more", "less")]
    for row in difficulty_agreement(run).query("on == 'all'").itertuples():
        about = f"{row.model.capitalize()}, {FORMS[row.form]}"
        if pd.isna(row.correlation):
            yield f"{about}: level and pass rate can't be compared, since one of them does not vary."
            continue
        meaning = _meaning({"low": row.low, "high": row.high}, *readings)
        yield (
            f"{about}: level of difficulty and pass rate have a rank correlation of {signed(row.correlation, 2)} "
            f"({signed(row.low, 2)} to {signed(row.high, 2)}, n {row.n:,}): {meaning}."
        )


def _plan(run: Run):
    plan, settings = run.read("plan"), run.profile.plan
    planned = plan.budget
    judged = planned[(planned["n"] >= settings.low_n) & planned["accuracy"].notna()]
    weak = plan.weak[~plan.weak[CELL].eq(UNLABELLED).any(axis=1)]
    below = "chance + {} of the rest" if settings.above_chance else "the target of {}"
    yield (
        f"{len(weak)} of the {len(judged)} cells with at least {settings.low_n} questions are weak: below "
        f"{below.format(_percent(settings.target))}."
    )
    if settings.rule == UNIFORM:
        yield "The budget is spread evenly."
        return
    if (used := planned["rule"].iloc[0]) != settings.rule:
        yield f"The rule {settings.rule} gives no cell any weight here, so the budget follows {used}."
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
    questions, rejects = stored.questions, stored.rejects
    written = rejects["question"].notna() if "question" in rejects else pd.Series(False, index=rejects.index)
    lost = _by_reason(rejects[written].groupby("reason").size().rename("count").reset_index())
    failed = int((~written).sum())
    yield (
        f"{name}: {len(questions):,} of {len(questions) + int(written.sum()):,} questions written were accepted"
        f"{f'; rejected: {lost}' if lost else ''}"
        f"{f'; {failed:,} requests returned none' if failed else ''}."
    )
    if "asked_difficulty" in stored.made and (fell := degradation(stored.made))["n"]:
        yield f"Of those asked for at H4 or H5, {_counted(fell['degraded'], fell['n'])} are labelled lower in the end."
    wrong = stored.refinement if "refinement" in stored and "decided" in questions else {}
    if {"wrong_before", "wrong_after", "n", "n_after"} <= set(wrong) and wrong["n"] and wrong["n_after"]:
        before, after = (
            _counted(wrong[f"wrong_{when}"], wrong[n]) for when, n in (("before", "n"), ("after", "n_after"))
        )
        yield f"Wrong answers, against the truth by construction: {before} as written, {after} after refinement."
    if "diagnostics" in stored and "coverage" in stored.diagnostics:
        walk = stored.diagnostics.iloc[0]
        yield (
            f"{walk['paths']:,.0f} walks of {walk['mean_length']:.1f} knowledge points reach "
            f"{_percent(walk['coverage'])} of the linked ones and {walk['distinct_seeds']:,.0f} seeds; visits and "
            f"popularity have a rank correlation of {walk['spearman']:.2f}."
        )


def _survivors(run: Run):
    """Whether the questions of the main data set that survive verification are the easy ones."""
    name = run.profile.main_set
    if name is None or not {"asked_discipline", "asked_difficulty"} <= set(run.read(name).made):
        yield "Which questions survive is unknown: those of the main arm do not record what was asked for."
        return
    table = survival(run, name)
    step = "curated" if "curated" in set(table["step"]) else "refined"
    count = table.pivot(index="difficulty", columns="step", values="n").drop(index="all")[["written", step]]
    high, low = (count[count.index.isin(HIGH) == wanted].sum() for wanted in (True, False))
    if not (high["written"] and low["written"]):
        return
    difference = difference_of_shares(high[step], high["written"], low[step], low["written"])
    meaning = _meaning(difference, "the hard ones survive more often", "the survivors are the easier ones")
    hard, easy = (_counted(level[step] / level["written"], level["written"]) for level in (high, low))
    yield (
        f"{name}, {step} at the level asked for or above: {hard} of the questions written for H4 and H5, {easy} of "
        f"those for H1 to H3. The difference is {_points(difference)}, unpaired: {meaning}."
    )


def _curate(run: Run):
    report = run.read("curate").report
    report = report[report["outcome"] != "flagged"] if len(report) else pd.DataFrame(columns=["dataset"])
    for name, rows in report.groupby("dataset", sort=False):
        kept, lost = rows[rows["outcome"] == "kept"]["rows"].sum(), rows[rows["outcome"] == "rejected"]
        why = _by_reason(lost.groupby("reason", as_index=False)["rows"].sum().rename(columns={"rows": "count"}))
        total = kept + lost["rows"].sum()
        yield f"{name}: {kept:,} of {total:,} questions may be trained on{f'; removed: {why}' if why else ''}."


def _midtrain(run: Run):
    mixed = run.read("midtrain").mixtures
    tokens = (mixed["qa"] + mixed["general"]).median()
    read = [f"{row.arm} {row.epochs:.1f} times" for row in mixed.itertuples() if row.qa]
    often = f"; their questions were read: {', '.join(read)}" if read else ""
    yield f"Each of {len(mixed)} arms read {short_count(tokens)} tokens from the same base{often}."


def _evaluate(run: Run):
    stored = run.read("evaluate")
    table = stored.comparisons.dropna(subset="difference") if len(stored.comparisons) else pd.DataFrame()
    controls = [BASE, *(arm for arm, sets in run.profile.arms.items() if not sets)]
    main, unread = run.profile.main_arm, stored.gains_by_blind
    for (a, b), rows in table.groupby(["a", "b"], sort=False) if len(table) else ():
        if b in controls or a == main:
            yield f"{a} compared with {b.replace('_', ' ')}: {_in_each(rows)}."
    unread = unread[(unread["a"] == main) & (unread["blind"] == "wrong") & unread["b"].isin(controls)]
    for row in unread.dropna(subset="difference").tail(1).to_dict("records"):  # a control, if there is one
        learned = "this gain does not come from choosing the most common answer"
        guessed = "its gain elsewhere may come from choosing the most common answer"
        yield (
            f"In weak cells, where the answer most common in its data is wrong, {main} gains {_points(row)} over "
            f"{row['b'].replace('_', ' ')} ({_meaning(row)}): {learned if row['low'] > 0 else guessed}."
        )
    for row in stored.general[stored.general["arm"] == main].dropna(subset="difference").to_dict("records"):
        yield (
            f"Bits per byte on held-out general text, compared with the base: {signed(row['difference'], 3)} "
            f"({signed(row['low'], 3)} to {signed(row['high'], 3)}, {row['documents']:,} documents); lower is better."
        )


def _scaling(run: Run):
    stored = run.read("scaling")
    for axis, points in stored.points.dropna(subset="gain").groupby("axis", sort=False):
        write, gains = power if "flops" in axis else short_count, []
        for row in points.sort_values("x").iloc[[0, -1]].to_dict("records"):
            gain = {"difference": row["gain"], "low": row["gain_low"], "high": row["gain_high"], "n": row["n"]}
            gains.append(f"{_points(gain)} at {write(row['x'])}")
        arm, over = row["arm"], row["over"].replace("_", " ")
        yield f"{axis.replace('_', ' ')}: {arm} compared with {over} {' and '.join(gains)}, paired."
    for row in stored.gains.to_dict("records"):
        slope, low, high = (signed(100 * row[name], 1) for name in ("slope", "low", "high"))
        meaning = {"grows": "a gain that grows", "shrinks": "a gain that shrinks"}.get(row["says"], "no clear change")
        yield (
            f"Per tenfold {row['axis'].replace('_', ' ')} that gain changes by {slope} points ({low} to {high}, "
            f"{row['n']} points on the axis): {meaning}."
        )
    main = stored.checks[stored.checks["arm"] == run.profile.main_arm] if len(stored.checks) else stored.checks
    for row in main.to_dict("records"):
        forecast, low, high = (100 * row[name] for name in ("forecast_accuracy", "low", "high"))
        yield (
            f"{row['axis'].replace('_', ' ')}: from the {row['points']} smaller points, {row['arm']} at the largest "
            f"was forecast at {forecast:.1f}% ({low:.1f} to {high:.1f}); {_percent(row['measured_accuracy'])} was "
            f"measured, {'inside' if row['covered'] else 'outside'} the interval, and "
            f"{_percent(row['repeated_accuracy'])} at the point before."
        )


def _ablations(run: Run):
    table = run.read("ablations").ablations
    for on, rows in table.dropna(subset="difference").groupby("on", sort=False):
        clear, seeds = rows[rows["p_holm"] < 0.05], rows["seeds"].max()
        listed = "; ".join(f"{row['ablation']} {_points(row)}" for row in clear.to_dict("records"))
        yield (
            f"Changed settings that move the accuracy {_WHERE[on]} (Holm-corrected p below 0.05): {listed or 'none'}. "
            f"{len(rows) - len(clear)} of {len(rows)} make no clear difference with n {rows['n'].max():,.0f}"
            f"{f' over {seeds} training seeds' if seeds > 1 else ''}."
        )
    seeds = training_seeds(run).dropna(subset="difference")
    for row in seeds[(seeds["on"] == "weak") & seeds["interval"].eq("both")].to_dict("records"):
        yield (
            f"Over training seeds ({row['seed']}), {run.profile.main_arm} compared with its control: {_points(row)} in "
            "weak cells; the interval is over seeds and questions."
        )


def _rounds(run: Run):
    stored = run.read("rounds")
    table, made = stored.comparisons, stored.rounds
    for b, rows in table[table["a"] == "rounds"].dropna(subset="difference").groupby("b", sort=False):
        over = "one pass of as many tokens and questions" if b == "one_pass" else b.replace("_", " ")
        rows = rows.assign(key=rows["on"].map({"weak": 0, "all": 1})).dropna(subset="key").sort_values("key")
        seeds = int(rows["seeds"].max())
        over += f", over {seeds} training seeds" if seeds > 1 else ""
        yield f"{made['round'].max()} rounds compared with {over}: {_in_each(rows)}."
    for seed, rows in made.groupby("seed"):
        gained = rows.dropna(subset="gain")[["gain", "gain_low", "gain_high", "n"]]
        gains = map(_points, gained.set_axis(["difference", "low", "high", "n"], axis=1).to_dict("records"))
        weak = f"{rows['weak_cells'].iloc[0]} cells were weak before and {rows['weak_cells'].iloc[-1]} after"
        why = rows["stopped"].iloc[0]
        yield f"Seed {seed}: gains on the probe's questions by round {'; '.join(gains)}. {weak}; {why}."


def _attribution(run: Run, name: str):
    stored = run.read(name)
    about, parts, table = stored.about, stored.parts, stored.matrix
    trained, cells = parts[parts["reason"].isna()], table[(table["on"] != "all") & table["p"].notna()]
    over = "the whole arm" if about["how"] == "without" else "general text alone"
    yield (
        f"{len(trained)} of {len(parts)} parts of {about['arm']} by {about['by']}, {_percent(trained['share'].sum())} "
        f"of its questions, were trained {about['how']}{' them' if about['how'] == 'without' else ''} and compared "
        f"with {over}: {about['tokens']:,} tokens, {about['seeds']} training seed{'s' * (about['seeds'] > 1)}."
    )
    if len(cells):
        clear = cells[(cells["low"] > 0) | (cells["high"] < 0)]
        yield (
            f"Of {len(cells)} pairs of part and exam cell with enough questions, {len(clear)} have an interval that "
            f"excludes 0 ({0.05 * len(cells):.0f} expected by chance), and {int((cells['p_holm'] < 0.05).sum())} are "
            "significant after Holm's correction."
        )
    rows = stored.contrast.set_index("of").to_dict("index") if len(stored.contrast) else {}
    if rows:
        difference = rows["own minus others"]
        meaning = _meaning(difference, "a part moves its own cells more", "a part moves its own cells less")
        yield (
            f"Questions of a part's own exam cell gain {_points(rows['own part'])} from it and "
            f"{_points(rows['other parts'])} from another part on average; the difference is {_points(difference)}: "
            f"{meaning}."
        )


_WHERE = {"weak": "in weak cells", "other": "in the other cells", "all": "over all"}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _share(samples: pd.DataFrame) -> str:
    right = samples["correct"].dropna()
    return _counted(float(right.mean()), len(right))


def _counted(share: float, n: int) -> str:
    """A share of `n` with its Wilson interval."""
    low, high = wilson(round(share * n), n)
    return f"{_percent(share)} ({100 * low:.1f} to {100 * high:.1f}, n {n:,})"


def _points(found) -> str:
    """A difference with its interval and n, for example +28.6 points (22.1 to 35.4, n 308)."""
    low, high = (signed(100 * found[k], 1).removeprefix("+") for k in ("low", "high"))
    return f"{signed(100 * found['difference'], 1)} points ({low} to {high}, n {int(found['n']):,})"


def _in_each(rows: pd.DataFrame) -> str:
    """Differences, each with its part of the exams and what its interval shows."""
    each = (f"{_points(row)} {_WHERE[row['on']]} ({_meaning(row)})" for row in rows.to_dict("records"))
    return ", ".join(each)


def _meaning(found, gain: str = "a gain", loss: str = "a loss") -> str:
    """What the interval of a difference shows."""
    return gain if found["low"] > 0 else loss if found["high"] < 0 else "no clear difference"


def _by_reason(counts: pd.DataFrame, most: int = 3) -> str:
    """Counts by reason, the most frequent first."""
    ranked = counts.groupby("reason")["count"].sum().sort_values(ascending=False, kind="stable")
    rest = f", other {ranked.iloc[most:].sum():,}" if len(ranked) > most else ""
    return ", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in ranked.iloc[:most].items()) + rest
