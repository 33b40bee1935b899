"""Which teacher layer each student layer is initialised from and compared with."""

import re
from dataclasses import dataclass
from typing import Any

from dq_lightning.models.recording import ATTENTION_STATES, RecordedOutput

_PUBLISHED = {1: (5,), 2: (0, 5), 3: (0, 2, 5), 4: (0, 2, 3, 5), 5: (0, 1, 3, 4, 5)}
"""DQ-BART (Li et al., ACL 2022), released code: student depth -> layers of a 6-layer teacher."""


def parse_layers(value: object) -> tuple[int, int]:
    """`student.layers`: an int for both stacks, or "E-D" -> (encoder layers, decoder layers)."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(value).strip())
    layers = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if isinstance(value, bool) or min(layers) < 1:
        raise ValueError(
            f"student.layers={value} is neither a number of layers nor encoder-decoder; write a "
            "whole number from 1 such as 3, or two such as 6-3."
        )
    return layers


def even_mapping(num_student_layers: int, num_teacher_layers: int) -> tuple[int, ...]:
    """The last layer of each of `num_student_layers` equal parts of the teacher.

    As TinyBERT's (Jiao et al. 2020, section 4.1): a student layer stands for all that the teacher
    computes between two of them, so the first teacher layer is not among them.

    >>> even_mapping(3, 6), even_mapping(1, 6)
    ((1, 3, 5), (5,))
    """
    parts = range(1, num_student_layers + 1)
    return tuple(-(-part * num_teacher_layers // num_student_layers) - 1 for part in parts)


def dq_bart_mapping(num_student_layers: int, num_teacher_layers: int) -> tuple[int, ...]:
    """The published maps of DQ-BART for a teacher of 6, else the same idea: first and last kept.

    A one-layer student takes the last.

    >>> dq_bart_mapping(3, 6), dq_bart_mapping(1, 6)
    ((0, 2, 5), (5,))
    """
    if num_teacher_layers == 6 and num_student_layers in _PUBLISHED:
        return _PUBLISHED[num_student_layers]
    if num_student_layers == 1:
        return (num_teacher_layers - 1,)
    step = (num_teacher_layers - 1) / (num_student_layers - 1)
    return tuple(int(layer * step + 0.5) for layer in range(num_student_layers))


_RULES = {"even": even_mapping, "dq_bart": dq_bart_mapping}


@dataclass(frozen=True)
class LayerMapping:
    """encoder[i], decoder[i]: the teacher layer that student layer i stands for."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]

    def select(self, outputs: RecordedOutput) -> RecordedOutput:
        """The teacher's outputs cut to the mapped layers, so that both sides have equal length.

        Hidden states keep the embedding output in front. This is the only place that knows the
        offset between layer numbers and hidden-state positions.
        """
        chosen: dict[str, Any] = dict(outputs)
        for name, layers in (
            ("encoder_hidden_states", (-1, *self.encoder)),
            ("decoder_hidden_states", (-1, *self.decoder)),
        ):
            if chosen.get(name):
                chosen[name] = tuple(chosen[name][layer + 1] for layer in layers)
        for name, layers in (
            ("encoder_attentions", self.encoder),
            ("decoder_attentions", self.decoder),
            ("cross_attentions", self.decoder),
            *((f"encoder_{kind}", self.encoder) for kind in ATTENTION_STATES),
            *((f"decoder_{kind}", self.decoder) for kind in ATTENTION_STATES),
        ):
            if chosen.get(name):
                chosen[name] = tuple(chosen[name][layer] for layer in layers)
        return RecordedOutput(**chosen)


def layer_mapping(
    student_layers: tuple[int, int],
    teacher_layers: tuple[int, int],
    encoder: list[int] | None = None,
    decoder: list[int] | None = None,
    rule: str = "even",
) -> LayerMapping:
    """The mapping of both stacks; explicit lists (`student.encoder_mapping`) win over the rule.

    rule: "even" or "dq_bart". Raises ValueError for another one, when the student has more layers
    than the teacher, or when a list does not fit.
    """
    if rule not in _RULES:
        raise ValueError(f"student.mapping={rule} is unknown; write one of {', '.join(_RULES)}.")
    stacks: list[tuple[int, ...]] = []
    for stack, student, teacher, chosen in (
        ("encoder", student_layers[0], teacher_layers[0], encoder),
        ("decoder", student_layers[1], teacher_layers[1], decoder),
    ):
        if student > teacher:
            raise ValueError(
                f"student.layers (or student.{stack}_layers) asks for {student} {stack} layers, "
                f"but the teacher has only {teacher}; write student.layers={teacher} or fewer."
            )
        layers = tuple(chosen) if chosen is not None else _RULES[rule](student, teacher)
        if len(layers) != student or not all(0 <= layer < teacher for layer in layers):
            raise ValueError(
                f"student.{stack}_mapping={list(layers)} does not fit; write {student} teacher "
                f"layer numbers between 0 and {teacher - 1}."
            )
        stacks.append(layers)
    return LayerMapping(*stacks)
