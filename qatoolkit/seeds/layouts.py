"""What the columns of a data set mean: the names of every field, and layouts that single names do not reveal.

Column names are compared without case, spaces and punctuation. `NAMES` lists the names of each field in order of
preference; of several matching columns, the first whose content fits is used. `LAYOUTS` is for columns that only mean
something together. The last entry that fits the rows wins, so an appended one takes precedence:

    qt.seeds.LAYOUTS.append(qt.seeds.Layout(name="flash cards", columns={"question": "front", "answer": "back"}))

In both, a dot leads into a nested object ("answer.value") or to the only message of a role ("messages.user"), and a
star matches numbered or lettered columns (option* is option1, option2, ... or optiona, optionb, ...). Columns
joined by a plus are used together (title+body).
"""

from collections.abc import Mapping
from dataclasses import dataclass

POINTERS = ("index", "idx", "id", "pos", "position", "num", "number")  # an answer only if there are choices
_RIGHT = [
    "answer", "correctanswer", "correct", "correctoption", "correctchoice", "gold", "rightanswer", "goldanswer",
    "goldenanswer", "trueanswer", "target", "expectedanswer", "referenceanswer", "groundtruth",
]  # fmt: skip
ENDS = ("", "key", "label", "letter", "option", "choice", "text", *POINTERS)
KEYS = " ".join([*(right + end for right in _RIGHT for end in ENDS), *(f"{right}s" for right in _RIGHT[1:])])
_WRONG = [
    f"{wrong}{what}{end}"
    for end in ("s", "*", "")
    for wrong in ("incorrect", "wrong", "false")
    for what in ("answer", "option", "choice", "")
]
_QUESTION = (
    "question questiontext qtext questionstr query questionstem stem problem problemstatement problemtext ctx prompt instruction"
    " questiontitle+questionbody questiontitle+questioncontent questiontitle title+body body input inputs content"
    " 题目 題目 问题 問題 题干 试题 q originaltext"
)
LATE_QUESTIONS = {"choices": "statement", "answer": "title"}  # used beside this field if nothing better is found
_CHOICES = (
    "choices options candidates endings alternatives answerchoices answeroptions answeroptionlist optionlist choicelist"
    " choice option 选项 選項"
)
_CHATS = ("messages", "conversations", "conversation", "dialog", "turns")
_ASKS, _REPLIES = (
    " ".join(f"{chat}.{role}" for chat in _CHATS for role in roles)
    for roles in (("user", "human"), ("assistant", "gpt"))
)
NAMES = {
    "question": " ".join(
        [_QUESTION.replace(" content", ""), *(f"question.{n}" for n in _QUESTION.split()), "question.text", _ASKS]
    ),
    "choices": " ".join([_CHOICES, *(f"question.{n}" for n in _CHOICES.split())])
    + " option* choice* opt* op* answer* ans* answerchoice* mcanswer* ending* candidate* alternative* sol* 选项* *",
    "answer": f"{KEYS} finalanswer finalans ans golden finaldecision answervalue bestanswer"
    " cop ra answerlatex label output completion response answers possibleanswers acceptableanswers shortanswers"
    " answer.value answer.number answer.text answers.text answersspans.spans solution exactanswer groundtruthanswer"
    f" answernumber 答案 正确答案 参考答案 标准答案 正确选项 回答 {_REPLIES} a",
    "wrong": "wrong",
    "marks": "marks",
    "mark": "mark",
    "impossible": "isimpossible impossible unanswerable isunanswerable noanswer",
    "answerable": "answerable isanswerable hasanswer",
    "aliases": "aliases answer.aliases answeraliases answeralias correctanswers acceptedanswers acceptableanswers"
    " possibleanswers alternativeanswers alternateanswers oaliases answers",
    "power": "power exponent poweroften orderofmagnitude multiplier factor",
    "unit": "unit units answerunit answer.unit scale",
    "context": "context contexts context.contexts context.sentences context.paragraphs background+situation passage"
    " article story paragraph document documentstr dialogue dialog narrative premise florespassage background input body"
    " hint text 材料 situation plot sentence contract scenario premises table selftext passage.text context.text"
    " document.summary.text",
    "rationale": "rationale explanation analysis reasoning cot cotcontent chainofthought exp longanswer answeranalysis"
    " generatedsolution support facts solution 解析 解答",
    "language": "language lang",
    "licence": "licence license",
    "source": "source dataset",
    "source_id": "id questionid qid queid uid uuid index idx",
    "subject": "subject subjectname topicname topic category field type discipline 学科 科目",
    "level": "level difficulty difficultylevel grade 难度 年级",
    "knowledge_points": "knowledgepoints knowledgepoint knowledgepointroutes 知识点 知識點",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns that only mean something together."""

    name: str
    """Shown in the reports."""
    columns: Mapping[str, str]
    """Field (a key of `NAMES`) -> names of its column. All fields must be found. Other fields are matched by `NAMES`.

    `wrong`: wrong answers, as a list or one per column; they and the answer become the choices. `marks`: 0 or 1 for
    each choice, or choice -> 0 or 1. `mark`: whether the row's only answer is right."""
    index_from: int | None = None
    """Base of numbered answers (0 or 1) if the rows do not show it."""
    lists: str | None = None
    """What a list of answers holds: "wordings" of one answer or "parts" of it; None decides by the rows."""
    known: str = ""
    """Data sets with this layout."""

    def __post_init__(self) -> None:
        """ValueError for a field that is not in `NAMES`."""
        if wrong := set(self.columns) - set(NAMES):
            raise ValueError(f"the layout {self.name!r} has the field {min(wrong)!r}; allowed: {', '.join(NAMES)}")


LAYOUTS: list[Layout] = [
    Layout(
        name="one candidate answer a row, marked right or wrong",
        columns={"answer": "answer candidate", "mark": "label iscorrect correct"},
        known="MultiRC, WikiQA",
    ),
    Layout(
        name="one response a row, marked right or wrong",
        columns={"answer": "response output completion prediction", "mark": "iscorrect correct"},
    ),
    Layout(
        name="text and answer",
        columns={"question": "text", "answer": "answer", "source_id": "index"},
        known="LegalBench",
    ),
    Layout(
        name="question, text and answer",
        columns={"question": "question", "context": "text", "answer": "answer", "source_id": "index"},
        known="LegalBench",
    ),
    Layout(
        name="goal and ways to it", columns={"question": "goal", "choices": "sol*", "answer": "label"}, known="PIQA"
    ),
    Layout(
        name="sentence with a gap",
        columns={"question": "sentence", "choices": "option*", "answer": "answer label"},
        index_from=1,
        known="WinoGrande",
    ),
    Layout(
        name="start and endings",
        columns={"question": "startphrase sent1", "choices": "ending*", "answer": "label"},
        known="SWAG",
    ),
    Layout(
        name="passage and answers in columns",
        columns={"context": "context", "choices": "answer*", "answer": "label"},
        index_from=1,
        known="CosmosQA, SocialIQA",
    ),
    Layout(
        name="answers are the choices",
        columns={"choices": "answers answertexts", "answer": f"label {KEYS} ra cop ans 答案 正确答案"},
        known="ReClor, QuAIL",
    ),
    Layout(
        name="right and wrong answers",
        columns={
            "answer": f"bestanswer correctanswer rightanswer correct gold {KEYS}",
            "wrong": " ".join([*_WRONG, "distractors", "distractor*", "distractor", "干扰项", "干扰项*", "错误答案*"]),
        },
        known="SciQ, GPQA, OpenTDB, TruthfulQA",
    ),
    Layout(
        name="an answer as number or spans",
        columns={"answer": "answer.number answer.spans", "context": "passage"},
        lists="parts",
        known="DROP",
    ),
    Layout(
        name="value and unit",
        columns={"answer": "answer answerlatex answernumber answervalue value", "unit": "unit units"},
    ),
    Layout(name="choices that carry marks", columns={"choices": f"answers {_CHOICES}"}),
    Layout(name="choices with scores", columns={"marks": "targetscores optionscores choicescores"}, known="BIG-bench"),
    Layout(
        name="choices and marks",
        columns={
            "choices": "mc1targets.choices multiplechoicetargets choices.text choices options",
            "marks": "mc1targets.labels multiplechoicescores choices.iscorrect labels iscorrect",
        },
        known="TruthfulQA, BIG-bench",
    ),
]
