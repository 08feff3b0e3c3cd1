"""A direction as a safetensors file: the vector, and as metadata what it means and which models' space it lies in.

A direction in z belongs to one auxiliary model, one in w to one latent sampler as well; with other weights the same
numbers mean something else, so such a file is refused. The flow may be another one of the same auxiliary model.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lediflow.editing.config import ESTIMATORS, SPACES, AttributeConfig
from lediflow.editing.directions import Direction
from lediflow.errors import UserError
from lediflow.sampling.options import AUTO
from lediflow.text import shown_hash

FILE, VECTOR, KEY = "direction.safetensors", "direction", "lediflow"
# whose weights define the space, by the names of `weights`
MODELS = {"z": ("auxiliary",), "w": ("auxiliary", "latent_sampler")}
OPTIONS = {"auxiliary": "run", "latent_sampler": "sampler"}
Command = TypeVar("Command", bound=AttributeConfig)


def direction_bytes(direction: Direction, weights: dict[str, str], sets: dict[str, Any]) -> bytes:
    """The content of a file; `weights` are the SHA-256 of the models, `sets` a record of the pictures."""
    about = {
        **direction.record(),
        "weights": {name: weights[name] for name in MODELS[direction.space]},
        "sets": sets,
    }
    return save({VECTOR: direction.vector.contiguous().cpu()}, {KEY: json.dumps(about, sort_keys=True)})


class Stored(NamedTuple):
    """The content of a file."""

    path: str
    direction: Direction
    sets: dict[str, Any]  # record of the pictures
    models: dict[str, str]  # SHA-256 of the models in whose space it lies

    def check_models(self, weights: dict[str, str]) -> None:
        """UserError if the direction belongs to models with other weights than these."""
        for name in MODELS[self.direction.space]:
            if self.models.get(name) != weights[name]:
                raise UserError(
                    f"direction={self.path} lies in the {self.direction.space} of another {name.replace('_', ' ')} "
                    f"({shown_hash(self.models.get(name))}) than {OPTIONS[name]}= has ({shown_hash(weights[name])}); "
                    "give the models that it was made with, or make one for these: with=DIR without=DIR"
                )


def read_direction(path: str) -> Stored:
    """The content of a file. UserError if it cannot be read, or is no direction."""
    try:
        with safe_open(path, framework="pt") as file:
            vector = file.get_tensor(VECTOR)
            about = json.loads((file.metadata() or {})[KEY])
        names = [name for name in Direction._fields if name != "vector"]
        direction = Direction(vector, **{name: about[name] for name in names})
        if direction.space not in MODELS:
            raise KeyError(direction.space)
        return Stored(path, direction, about["sets"], about["weights"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"direction={path} is not a file that `lediflow.edit attribute` wrote ({error}); give its {FILE}"
        ) from error


def with_estimation(command: Command, stored: Direction | None) -> Command:
    """The command with `auto` replaced: by what a stored direction is of, which other values must not contradict."""
    if stored is None:
        space, estimator = SPACES[0], ESTIMATORS[0]
        return dataclasses.replace(
            command,
            space=space if command.space == AUTO else command.space,
            estimator=estimator if command.estimator == AUTO else command.estimator,
        )
    for name, value in (("space", stored.space), ("estimator", stored.estimator)):
        if (asked := getattr(command, name)) not in (AUTO, value):
            raise UserError(
                f"{name}={asked}, but direction={command.direction} is of {name}={value}; leave {name} out, or make "
                "another direction with with= and without="
            )
    return dataclasses.replace(command, space=stored.space, estimator=stored.estimator)
