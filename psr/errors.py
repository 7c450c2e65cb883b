"""The errors that are the user's to mend: `psr` prints their message alone, without a traceback, and exits with 1."""

from psr.data.annotator.settings import AnnotatorError
from psr.data.jsonl import DataError
from psr.encoding import StepBoundaryError
from psr.engines.base import EngineError
from psr.model_fetch import ModelFetchError
from psr.modules.policy import PolicyError
from psr.ranks import RankError


class UsageError(ValueError):
    """A setting that cannot work; the message names the setting, its value and the fix."""


class NoPairsError(RuntimeError):
    """An iteration has nothing to train on."""


USER_ERRORS = (
    *(AnnotatorError, DataError, EngineError, ModelFetchError, NoPairsError),
    *(PolicyError, RankError, StepBoundaryError, UsageError),
)
