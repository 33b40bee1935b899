"""Learned matrices that bring a student's hidden states to its teacher's width."""

from collections.abc import Collection
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dq_lightning.distillation.loss import Outputs, Widths, pair_layers, to_compute_dtype


class Projections(nn.Module):
    """One matrix W (teacher width, student width) a stack, shared by its layers: h_s -> W h_s.

    TinyBERT (Jiao et al. 2020, section 3.1). Differs from the paper, whose embeddings have a matrix
    of their own. W starts as a random orthogonal map, which keeps the length of states that it
    widens. Models of equal width get no matrix, and their states are compared as they are. The
    matrices train with the student and stay behind when it is saved; each loss has its own.
    """

    def __init__(self, attributes: Collection[str]) -> None:
        super().__init__()
        self.attributes = tuple(attributes)
        self.matrices = nn.ParameterDict()

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Make the matrices, if the models' hidden states differ in width."""
        for attribute in self.attributes if student.hidden != teacher.hidden else ():
            matrix = nn.init.orthogonal_(torch.empty(teacher.hidden, student.hidden))
            self.matrices[attribute] = nn.Parameter(matrix)

    def pairs(
        self, student: Outputs, teacher: Outputs | None, attribute: str
    ) -> list[tuple[Tensor, Tensor]]:
        """Return `pair_layers` with the student's states in the teacher's width."""
        if attribute not in self.matrices:
            return pair_layers(student, teacher, attribute)
        matrix = self.matrices[attribute]
        return pair_layers(student, teacher, attribute, project=partial(projected, matrix=matrix))


def projected(
    states: Float[Tensor, "*positions student_width"],
    matrix: Float[Tensor, "teacher_width student_width"],
) -> Float[Tensor, "*positions teacher_width"]:
    """Return matrix @ state for every state, in at least float32."""
    states = to_compute_dtype(states)
    # Autocast would lower the product to half precision.
    with torch.autocast(states.device.type, enabled=False):
        return F.linear(states, matrix.to(states.dtype))
