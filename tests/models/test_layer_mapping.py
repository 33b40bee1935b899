"""Layer notation, default maps, and the alignment of the teacher's outputs."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import Seq2SeqLMOutput

from dq_lightning.models.layer_mapping import (
    LayerMapping,
    dq_bart_mapping,
    even_mapping,
    layer_mapping,
    parse_layers,
)

PUBLISHED = {1: (5,), 2: (0, 5), 3: (0, 2, 5), 4: (0, 2, 3, 5), 5: (0, 1, 3, 4, 5)}


@pytest.mark.parametrize(
    ("value", "layers"),
    [(3, (3, 3)), ("3", (3, 3)), ("6-3", (6, 3)), (" 12-1 ", (12, 1)), ("1-1", (1, 1))],
)
def test_good_layers(value, layers):
    assert parse_layers(value) == layers


@pytest.mark.parametrize(
    "value",
    [0, -1, 3.5, 3.0, "", "6-", "-3", "6-0", "0-6", "6-3-1", "six", "6,3", None, True, [6, 3]],
)
def test_bad_layers_are_one_sentence(value):
    with pytest.raises(ValueError, match=r"^student\.layers=.* write .*6-3\.$"):
        parse_layers(value)


@pytest.mark.parametrize(("depth", "layers"), PUBLISHED.items())
def test_published_maps_of_a_teacher_of_six(depth, layers):
    assert dq_bart_mapping(depth, 6) == layers


@given(st.integers(1, 48).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_laws_of_the_published_maps(depths):
    student, teacher = depths
    layers = dq_bart_mapping(student, teacher)
    assert len(layers) == student
    assert layers[-1] == teacher - 1
    assert student == 1 or layers[0] == 0
    assert all(low < high for low, high in pairwise(layers))
    if student == teacher:
        assert layers == tuple(range(teacher))


@given(st.integers(1, 48).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_laws_of_the_even_map(depths):
    """The parts between the chosen layers, the first part's beginning included, differ by one."""
    student, teacher = depths
    layers = even_mapping(student, teacher)
    parts = [high - low for low, high in pairwise((-1, *layers))]
    assert sum(parts) == teacher and layers[-1] == teacher - 1
    assert len(parts) == student and max(parts) - min(parts) <= 1


def test_the_rule_is_chosen_by_name():
    assert layer_mapping((6, 3), (6, 6)).decoder == (1, 3, 5)
    assert layer_mapping((6, 3), (6, 6), rule="dq_bart").decoder == (0, 2, 5)
    with pytest.raises(ValueError, match=r"^student\.mapping=odd is unknown; write one of even, "):
        layer_mapping((1, 1), (2, 2), rule="odd")


def test_both_stacks_are_mapped_each_on_its_own():
    assert layer_mapping((6, 3), (6, 12)) == LayerMapping((0, 1, 2, 3, 4, 5), (3, 7, 11))


def test_explicit_lists_win():
    mapping = layer_mapping((2, 1), (4, 3), encoder=[3, 0], decoder=[1])
    assert mapping == LayerMapping((3, 0), (1,))


@pytest.mark.parametrize(
    ("student", "encoder", "decoder", "sentence"),
    [
        ((5, 3), None, None, r"^student\.layers .* asks for 5 encoder .* only 4; .*=4 or fewer\.$"),
        ((4, 9), None, None, r"^student\.layers .* asks for 9 decoder .* only 3; .*=3 or fewer\.$"),
        ((2, 1), [0], None, r"^student\.encoder_mapping=\[0\] .* write 2 teacher .* 0 and 3\.$"),
        ((2, 1), [0, 4], None, r"^student\.encoder_mapping=\[0, 4\] .* 0 and 3\.$"),
        ((2, 1), None, [-1], r"^student\.decoder_mapping=\[-1\] .* 0 and 2\.$"),
        ((2, 1), None, [], r"^student\.decoder_mapping=\[\] .* 0 and 2\.$"),
    ],
)
def test_what_does_not_fit_is_one_sentence(student, encoder, decoder, sentence):
    with pytest.raises(ValueError, match=sentence):
        layer_mapping(student, (4, 3), encoder, decoder)


def _outputs() -> Seq2SeqLMOutput:
    """Every tensor holds its own position: hidden state n is n, attention map n is n."""
    numbered = [tuple(torch.tensor(float(n)) for n in range(count)) for count in (5, 4, 4, 3, 3)]
    return Seq2SeqLMOutput(
        logits=torch.tensor(7.0),
        encoder_hidden_states=numbered[0],
        decoder_hidden_states=numbered[1],
        encoder_attentions=numbered[2],
        decoder_attentions=numbered[3],
        cross_attentions=numbered[4],
    )


def test_select_picks_the_outputs_of_the_mapped_layers():
    selected = LayerMapping((1, 3), (0,)).select(_outputs())
    assert selected.encoder_hidden_states == (0.0, 2.0, 4.0)  # embeddings, after layers 1 and 3
    assert selected.decoder_hidden_states == (0.0, 1.0)
    assert selected.encoder_attentions == (1.0, 3.0)
    assert selected.decoder_attentions == selected.cross_attentions == (0.0,)
    assert selected.logits == 7.0


def test_select_leaves_out_what_was_not_recorded():
    selected = LayerMapping((1,), (0,)).select(Seq2SeqLMOutput(logits=torch.tensor(7.0)))
    assert dict(selected) == {"logits": torch.tensor(7.0)}
