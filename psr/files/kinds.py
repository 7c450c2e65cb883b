"""What a row of every kind of file holds: the schemas of the files that people write, on one page.

A field that is not named here is dropped while reading; an optional one may be null, which is the same as absent. Texts
hold something besides white space. Knows shapes only; `psr.files.rows` reads by them.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from psr.bounds import finite


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "it must hold some text")
    return text


def _id(value: Any) -> str:
    """An id as text, which it may be written as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise PydanticCustomError("id", "it must be a text or a whole number")
    return str(value)


def _answer(value: Any) -> str:
    """An answer as text; some sets give a number, or a list of answers."""
    if isinstance(value, list) and value:
        return ", ".join(map(_answer, value))
    number = isinstance(value, int | float) and not isinstance(value, bool) and finite(value)
    if not number and not isinstance(value, str):
        raise PydanticCustomError("answer", "it must be a text, a number or a list of these")
    return str(value)


Text = Annotated[str, AfterValidator(_not_blank)]
Written = str
"""What a model may have written as a step or response: nothing at all is a bad one, and one to learn from."""
Id = Annotated[str, BeforeValidator(_id)]
Answer = Annotated[str, BeforeValidator(_answer)]


class ProblemRow(TypedDict):
    """What the self-rewarding iterations search."""

    id: Id
    problem: Text


class GoldRow(TypedDict):
    """A problem of a benchmark; `unit`, `error` (a tolerance, or several) and `is_multiple_answer` as OlympiadBench."""

    id: NotRequired[Id]
    problem: Text
    answer: NotRequired[Answer]
    unit: NotRequired[str]
    error: NotRequired[Answer]
    is_multiple_answer: NotRequired[bool]


class Predicted(TypedDict):
    """A prediction to be graded; its reference answer (null where there is none) and rules are those of `GoldRow`."""

    prediction: str
    answer: Any


class SourceRow(TypedDict):
    """A row of a source of problems, in our names of its columns."""

    id: NotRequired[Id]
    problem: Text
    solution: NotRequired[str]
    answer: NotRequired[Answer]
    source: NotRequired[str]


class Worked(TypedDict):
    """A worked solution (IFT), one step a line."""

    id: NotRequired[Id]
    problem: Text
    solution: Text
    answer: NotRequired[Answer]


class Explanations(TypedDict):
    """What a judge said of a pair in either order."""

    chosen_first: str
    rejected_first: str


class Pair(TypedDict):
    """A judged pair (EFT): next steps, or whole responses where `granularity` is "response"."""

    id: NotRequired[Id]
    problem: Text
    previous_steps: list[Written]
    chosen: Text
    rejected: Written
    explanations: NotRequired[Explanations]
    granularity: NotRequired[Literal["step", "response"]]


class Scored(TypedDict):
    """A next step, or a whole response, with its points."""

    problem: Text
    previous_steps: list[Written]
    response: Written
    score: Literal[0, 1, 2, 3, 4, 5]
    explanation: NotRequired[str]
    granularity: NotRequired[Literal["step", "response"]]


class Graded(TypedDict):
    """Whether a problem was solved; null where it has no reference answer."""

    id: Id
    correct: bool | None


class Completion(TypedDict):
    """A candidate of a step; `rating` is 1 (good), 0 (neutral) or -1 (bad)."""

    text: Written
    rating: NotRequired[Literal[-1, 0, 1] | None]
    chosen: NotRequired[bool | None]


class Completions(TypedDict):
    """A rated step."""

    completions: list[Completion]


class Rated(TypedDict):
    """A rated trajectory in our format."""

    id: NotRequired[Id]
    problem: Text
    steps: list[Completions]


class PRM800KStep(TypedDict):
    """A rated step in PRM800K's format; where no completion was good enough, people wrote one."""

    completions: list[Completion] | None
    human_completion: NotRequired[Completion | None]
    chosen_completion: int | None


class PRM800KQuestion(TypedDict):
    problem: Text


class PRM800KLabel(TypedDict):
    steps: list[PRM800KStep]


class PRM800KRated(TypedDict):
    """A rated trajectory in PRM800K's format."""

    id: NotRequired[Id]
    question: PRM800KQuestion
    label: PRM800KLabel
