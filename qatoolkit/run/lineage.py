"""Where a question came from and what it cost: its seeds, every call to a teacher made for it, and the checks it went
through.

Stages keep the ledger keys of the calls for each row in a column `calls` ("step/key"). A call that wrote several
questions is shared among them in equal parts, kept or rejected."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

import pandas as pd

from qatoolkit.core import display
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.store import Run
from qatoolkit.teacher.prices import price_of

COUNTED = ["attempts", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cost"]
CLIP = 2000  # characters of a prompt or an answer that are shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Lineage(display.Sections):
    """The history of one question.

    `row` is the question as it is now; `seeds` the rows it was written from; `steps` each step with its result, in
    order; `calls` one row for each request with step, model, attempts, tokens, USD (NaN if a price is unknown), this
    question's share of it, and `key`, `request` and `response` from the ledger. `cost` is the question's part of the
    total in USD."""

    row: dict
    seeds: pd.DataFrame
    steps: pd.DataFrame
    calls: pd.DataFrame

    @property
    def cost(self) -> float:
        """USD, NaN if the price of a call is unknown."""
        return float((self.calls["cost"] * self.calls["share"]).sum(skipna=False))

    def _sections(self):
        hide = ("calls", "parents")
        yield "", display.qa(pd.DataFrame([self.row]), n=1, hide=hide)
        yield "what was done", display.table(self.steps)
        if len(self.seeds):
            yield "written from", display.qa(self.seeds, n=len(self.seeds), hide=hide)
        shown = self.calls.drop(columns=["key", "request", "response"])
        yield f"calls; this question's part of their cost is ${self.cost:.6f}", display.table(shown)

    def _repr_html_(self) -> str:
        return super()._repr_html_() + "".join(map(_exchange, self.calls.to_dict("records")))


def _exchange(call: dict) -> str:
    """The messages of a call, folded."""
    messages = [(m["role"], m["content"]) for m in json.loads(call["request"])["body"]["messages"]]
    reply = json.loads(call["response"])["choices"][0]["message"]
    messages += [(n, reply[n]) for n in ("reasoning_content", "reasoning", "content") if reply.get(n)]
    texts = "".join(
        f'<div style="{display.PROSE}"><span style="{display.MUTED}">{escape(role)}</span> '
        f"{escape(str(text)[:CLIP])}</div>"
        for role, text in messages
    )
    head = f"{call['step']} · {call['model']} · {call['key'][:12]}"
    return f'<details><summary style="{display.MUTED}">{escape(head)}</summary>{texts}</details>'


def lineage(run: Run, id: str) -> Lineage:
    """The history of a seed or synthetic question of a run, kept or rejected; ValueError when no stage knows the id."""
    for dataset in run.profile.data:
        if run.manifest(dataset) and (found := trace(run, id, _tables(run, dataset), _curation_step(run, dataset, id))):
            return found
    stored = run.read("annotate")
    if found := trace(run, id, {"_seed": stored.seeds, "_rejects": stored.rejects}, _curation_step(run, SEEDS, id)):
        return found
    raise ValueError(f"no stage of {run.name!r} knows a question with id {id!r}")


def trace(run: Run, id: str, tables: dict[str, pd.DataFrame], fate: list[dict]) -> Lineage | None:
    """The history of a question in the tables of a synthesis ("_made", "" for the accepted ones, "_rejects") or of the
    seeds, ending with `fate`, the steps after them; None if no table has it."""
    first = {
        name: table[table["reason"] != "repeated"] if "reason" in table else table for name, table in tables.items()
    }
    if not (history := _rows(first, id)):  # a repeated question counts by its first row
        return None
    row, seeds = history[-1][1], run.read("annotate").seeds
    parents = row.get("parents")
    return Lineage(
        row=row,
        seeds=seeds[seeds["id"].isin([] if parents is None else list(parents))],
        steps=pd.DataFrame([_step(*entry) for entry in history] + fate),
        calls=_calls(run, join_calls(tables.values()), row["calls"]),
    )


def _tables(run: Run, dataset: str) -> dict[str, pd.DataFrame]:
    """The tables of a synthesis in the order of its steps."""
    stored = run.read(dataset)
    return {"_made": stored.made, "": stored.questions, "_rejects": stored.rejects}


def _rows(tables: dict[str, pd.DataFrame], id: str) -> list[tuple[str, dict]]:
    """The row of an id in each of the tables that has one, with the table's name."""
    matches = {name: table[table["id"] == id] for name, table in tables.items() if "id" in table}
    return [(name, rows.iloc[0].to_dict()) for name, rows in matches.items() if len(rows)]


def _step(suffix: str, row: dict) -> dict:
    labels = ", ".join(str(row[name]) for name in LABELS if row.get(name) is not None)
    if suffix == "_seed":
        return {"step": "labelled", "result": labels}
    if suffix == "_made":
        asked = [row.get("asked_discipline"), row.get("asked_difficulty")]
        wanted = ", ".join(str(a) for a in asked if a is not None and a == a)
        return {"step": "written and labelled", "result": f"asked for {wanted or 'anything'}, labelled {labels}"}
    if suffix == "_rejects":
        return {"step": "rejected", "result": f"{row['reason']}: {row['detail']}"}
    if "decided" not in row:
        return {"step": "kept as written", "result": "refinement is switched off"}
    answers = f"first answer {row['first_answer']!r}, second answer {row['second_answer']!r}, kept {row['answer']!r}"
    return {"step": "refined", "result": f"{answers} (decided: {row['decided']})"}


def _curation_step(run: Run, dataset: str, id: str) -> list[dict]:
    if "curate" not in run.done() or dataset not in (stored := run.read("curate")):
        return []
    if (getattr(stored, dataset)["id"] == id).any():
        return [{"step": "curated", "result": "kept"}]
    rejects = getattr(stored, f"{dataset}_rejects")
    match = rejects[rejects["id"] == id]
    return [{"step": "curated", "result": f"{r.reason}: {r.detail}"} for r in match[:1].itertuples()]


def rows_of(run: Run, dataset: str, *more: str) -> pd.DataFrame:
    """What a data set's synthesis wrote or failed to write, one row each: `id` (null for a request that failed),
    `strategy`, the columns `more`, and `calls`: those made for it at any step."""
    stored = run.read(dataset)
    return join_calls((stored.made, stored.questions, stored.rejects), *more)


def join_calls(tables: Iterable[pd.DataFrame], *more: str) -> pd.DataFrame:
    """`rows_of`, from the tables of a synthesis."""
    kept = ["strategy", *more]
    rows = pd.concat([table.reindex(columns=["id", *kept, "calls"]) for table in tables])
    questions = rows[rows["id"].notna()].explode("calls").drop_duplicates(["id", "calls"])
    questions = questions.groupby("id", sort=False).agg(dict.fromkeys(kept, "first") | {"calls": list}).reset_index()
    return pd.concat([questions, rows[rows["id"].isna()]], ignore_index=True)


def shares_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each row and call: the row, `step`, `key`, and the row's `share` of the call."""
    lines = rows.explode("calls").dropna(subset="calls")
    step_and_key = lines["calls"].astype("str").str.split("/")
    lines = lines.assign(step=step_and_key.str[0], key=step_and_key.str[1])
    return lines.assign(share=1.0 / lines.groupby("key")["key"].transform("size"))


def _calls(run: Run, rows: pd.DataFrame, calls: list[str]) -> pd.DataFrame:
    """The `calls` of a question with cost and text; `rows` are all the rows that share calls."""
    shares = shares_of(rows[["id", "strategy", "calls"]]).drop_duplicates("key").set_index("key")["share"]
    keys = [call.split("/", 1)[1] for call in calls]
    with run.ledger() as ledger:
        costs, texts = ledger.costs(keys), ledger.exchanges(keys)
    table = pd.DataFrame({"step": [call.split("/", 1)[0] for call in calls], "key": keys})
    table = table.merge(costs, on="key", how="left").merge(texts, on="key", how="inner")
    return table.assign(share=table["key"].map(shares).fillna(1.0).to_numpy())[
        ["step", "model", *COUNTED, "share", "key", "request", "response"]
    ]


def cost_per_question(run: Run, priced_as: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What an accepted question cost, by data set and strategy, wasted calls included.

    Columns: dataset, strategy, written, accepted (after curation if it has run, else before), requests, attempts,
    prompt_tokens, completion_tokens, usd (NaN if a price is unknown), tokens_per_accepted, usd_per_accepted.
    `priced_as` gives a model the list price of another: {"textbook-err15": "deepseek-reasoner"} shows what the same
    tokens would have cost there. Calls answered from the ledger count at what was paid when they were made.
    MissingUpstream, naming the notebook to run, before anything is synthesised."""
    curated = run.read("curate") if "curate" in run.done() else None
    tables = []
    with run.ledger() as ledger:
        for dataset in run.profile.data:
            if not run.manifest(dataset):
                continue
            rows = rows_of(run, dataset)
            is_curated = curated is not None and dataset in curated
            final = getattr(curated, dataset) if is_curated else run.read(dataset).questions
            shares = shares_of(rows)
            costs = priced(ledger.costs(shares["key"].unique()), priced_as or {})
            lines = shares.merge(costs, on="key", how="left")
            lines[COUNTED] = lines[COUNTED].mul(lines["share"], axis=0)
            lines["requests"] = lines["share"]
            table = lines.groupby("strategy")[["requests", *COUNTED]].agg(lambda x: x.sum(skipna=False))
            table["written"] = rows.dropna(subset="id").groupby("strategy").size()
            table["accepted"] = final.groupby("strategy").size()
            tables.append(table.reset_index().assign(dataset=dataset))
    if not tables:
        run.read(next(iter(run.profile.data)))  # raises
    table = pd.concat(tables, ignore_index=True).rename(columns={"cost": "usd"})
    whole = ["written", "accepted", "requests", "attempts", "prompt_tokens", "completion_tokens"]
    table[whole] = table[whole].fillna(0).round().astype("int64")
    accepted = table["accepted"].where(table["accepted"] > 0)
    table["tokens_per_accepted"] = (table["prompt_tokens"] + table["completion_tokens"]) / accepted
    table["usd_per_accepted"] = table["usd"] / accepted
    return table[["dataset", "strategy", *whole, "usd", "tokens_per_accepted", "usd_per_accepted"]]


def priced(costs: pd.DataFrame, priced_as: Mapping[str, str]) -> pd.DataFrame:
    """The costs of calls, those of some models replaced by their tokens at the list price of another model."""
    costs = costs.copy()
    for model, other in priced_as.items():
        price = price_of(other)
        if price is None:
            raise ValueError(f"priced_as names {other!r}, which is not in prices.csv; name a model that is")
        rows = costs["model"] == model
        tokens = costs.loc[rows, ["prompt_tokens", "completion_tokens"]].astype(float)
        costs.loc[rows, "cost"] = (
            tokens["prompt_tokens"] * price.input + tokens["completion_tokens"] * price.output
        ) / 1e6
    return costs
