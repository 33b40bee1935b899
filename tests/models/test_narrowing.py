"""Narrow students: lossless where what is cut away does nothing, and merged heads mean the mean."""

import copy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForSeq2SeqLM

from dq_lightning.choices import build
from dq_lightning.composition import build_models
from dq_lightning.models.family import family_of
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.layout import FEED_FORWARD, HEADS, PAIRS, VALUES, WIDTH
from dq_lightning.models.narrowing import Narrowing, narrow_config, strongest
from dq_lightning.models.student import student_from_teacher

CONF = Path(__file__).parents[2] / "conf"
IDENTITY = LayerMapping((0, 1, 2, 3), (0, 1, 2))
SHRUNK = LayerMapping((1, 3), (2,))
STATES = ("encoder_hidden_states", "decoder_hidden_states")
MAPS = ("encoder_attentions", "decoder_attentions", "cross_attentions")


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def closely_equal(left, right, tolerance=1e-11):
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


def narrowed(model, mapping=IDENTITY, **sizes):
    family = family_of(model.config)
    return student_from_teacher(model, family, mapping, narrowing=Narrowing(**sizes)).eval()


@torch.no_grad()
def outputs(model, inputs):
    model.set_attn_implementation("eager")
    return model(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)


@pytest.fixture
def small_model(teacher_model):
    """In float64; embeddings unscaled (the scale follows the width), their columns equally long."""
    config = copy.deepcopy(teacher_model.config)
    config.scale_embedding = False
    model = type(teacher_model)(config)
    model.load_state_dict(teacher_model.state_dict())
    for name, weight in model.named_parameters():
        if name.endswith(("shared.weight", "embed_tokens.weight")):
            weight.data.sign_().mul_(0.5)
    return model.double().eval()


def large_noise(value):
    return 9 * torch.randn_like(value)


def filling(name, axes, dim, layout):
    """What to put beside the slices of a weight so that the model computes the same; None: nothing.

    What writes to a feature writes to its copies too, which leaves means and variances as they
    were, and nothing reads these: equally long columns of the embeddings make the first ones stay.
    Of further inner features one side is 0, the other large.
    """
    axis = axes[dim]
    has_own_head_size = layout.head_size_key is not None
    if axis in (None, HEADS) or (has_own_head_size and axis in (PAIRS, VALUES)):
        return None
    is_reader = dim == 1 and axes[0] is not None
    if axis == WIDTH and not is_reader:
        return torch.clone
    return torch.zeros_like if is_reader or ".k_proj." in name else large_noise


def widened(model):
    """A model of four times the width, head size (BART) and neurons that computes the same."""
    layout = family_of(model.config).layout
    config = copy.deepcopy(model.config)
    for key in (layout.width_key, *set(layout.feed_forward_keys)):
        setattr(config, key, 4 * getattr(config, key))
    weights = {}
    for name, weight in model.state_dict().items():
        value, axes = weight, layout.axes_of(name)
        for dim in range(value.ndim):
            fill = filling(name, axes, dim, layout)
            if fill is not None:
                slices = [value, *(fill(value) for _ in range(3))]
                inner = torch.stack(slices, dim + 1).flatten(dim, dim + 1)
                value = torch.cat(slices, dim) if axes[dim] == WIDTH else inner
        # scores of heads of four times the size are divided by twice as much
        weights[name] = 2 * value if layout.scales_scores and layout.is_query(name) else value
    wide = type(model)(config).double().eval()
    wide.load_state_dict(weights)
    for name, buffer in wide.named_buffers():
        if name.endswith("embed_positions.weights"):  # M2M-100's, which no state dict holds
            buffer.copy_(model.get_buffer(name).repeat(1, 4))
    return wide


def test_what_is_not_narrowed_is_copied_bit_for_bit(teacher_model):
    theirs = teacher_model.state_dict()
    exactly_equal(narrowed(teacher_model, num_heads=2, width=16, feed_forward=24).state_dict(),
                  narrowed(teacher_model).state_dict())  # fmt: skip
    layout = family_of(teacher_model.config).layout
    for name, value in narrowed(teacher_model, feed_forward=8).state_dict().items():
        if FEED_FORWARD not in layout.axes_of(name):
            exactly_equal(value, theirs[name])


def test_widening_changes_no_result(small_model, inputs):
    """The teacher of the next test is what it claims to be."""
    theirs, ours = outputs(widened(small_model), inputs), outputs(small_model, inputs)
    # T5 normalizes in float32
    tolerance = 1e-11 if family_of(small_model.config).layout.scales_scores else 1e-4
    for name in STATES:
        closely_equal([state[..., :16] for state in theirs[name]], list(ours[name]), tolerance)
    for name in MAPS:
        closely_equal(theirs[name], ours[name], tolerance)


@pytest.mark.parametrize("mapping", [IDENTITY, SHRUNK], ids=["depth kept", "depth halved"])
def test_cutting_what_does_nothing_gives_back_the_small_model(small_model, inputs, mapping):
    student = narrowed(widened(small_model), mapping, width=16, feed_forward=24)
    expected = narrowed(small_model, mapping)
    exactly_equal(student.state_dict(), expected.state_dict())
    exactly_equal(list(student.buffers()), list(expected.buffers()))
    assert student.config.to_dict() == expected.config.to_dict()
    exactly_equal(outputs(student, inputs).logits, outputs(expected, inputs).logits)


def silence_half_of_each_head(model, layout):
    """Half of the query-key and of the value-output pairs of each head do nothing."""
    for name, weight in model.named_parameters():
        size = layout.sizes(model.config)[0].head_size
        axes = layout.axes_of(name)
        if name.endswith((".k.weight", ".k_proj.weight", ".k_proj.bias")):
            weight.unflatten(0, (-1, size))[:, ::2] = 0.0
        elif axes == (WIDTH, VALUES):
            weight.unflatten(1, (-1, size))[:, :, 1::2] = 0.0


@torch.no_grad()
def merged_teacher(model, copies):
    """Two heads of which T5 can keep every pair; `copies`: both attend alike."""
    layout = family_of(model.config).layout
    if layout.head_size_key is not None:
        silence_half_of_each_head(model, layout)
    for name, weight in model.named_parameters() if copies else ():
        axes = layout.axes_of(name)
        if axes[0] == PAIRS:
            half = weight.shape[0] // 2
            weight[half:] = weight[:half]
        elif HEADS in axes:
            weight[:, 1] = weight[:, 0]
    return model


def test_merged_copies_compute_the_same(small_model, inputs):
    teacher = merged_teacher(small_model, copies=True)
    theirs, ours = outputs(teacher, inputs), outputs(narrowed(teacher, num_heads=1), inputs)
    closely_equal(ours.logits, theirs.logits)
    for name in STATES:
        closely_equal(ours[name], theirs[name])
    for name in MAPS:
        closely_equal(list(ours[name]), [both[:, :1] for both in theirs[name]])


def test_a_merged_head_scores_the_mean_of_its_heads(small_model, inputs):
    """Its map is the geometric mean of theirs, scaled to sum to 1: scores are logarithms."""
    teacher = merged_teacher(small_model, copies=False)
    theirs, ours = (outputs(m, inputs) for m in (teacher, narrowed(teacher, num_heads=1)))
    for name in MAPS[:2]:  # the first layers' inputs are still the teacher's
        mean = theirs[name][0].log().mean(1, keepdim=True).exp()
        closely_equal(ours[name][0], mean / mean.sum(-1, keepdim=True))


@torch.no_grad()
def test_saves_reloads_and_generates_bit_exactly(teacher_model, inputs, tmp_path):
    student = narrowed(teacher_model, SHRUNK, num_heads=1, width=8, feed_forward=12)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    exactly_equal(loaded.state_dict(), student.state_dict())
    exactly_equal(loaded(**inputs).logits, student(**inputs).logits)
    settings = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    exactly_equal(
        loaded.generate(inputs["input_ids"], **settings),
        student.generate(inputs["input_ids"], **settings),
    )
    sizes = family_of(student.config).layout.sizes(loaded.config)
    assert [(s.width, s.heads, s.feed_forward) for s in sizes] == 2 * [(8, 1, 12)]
    assert torch.isfinite(student(**inputs).logits).all()


def test_the_strongest_features_and_neurons_stay(make_bart):
    teacher = make_bart()
    student = narrowed(teacher, width=4, feed_forward=5)
    table = teacher.model.shared.weight
    features = table.square().sum(0).topk(4).indices.sort().values
    exactly_equal(student.model.shared.weight, table[:, features])
    theirs, ours = (model.model.decoder.layers[2] for model in (teacher, student))
    rows = torch.cat([theirs.fc1.weight, theirs.fc1.bias[:, None]], 1)
    importance = rows.norm(dim=1) * theirs.fc2.weight.norm(dim=0)
    neurons = importance.topk(5).indices.sort().values
    exactly_equal(ours.fc1.weight, theirs.fc1.weight[neurons][:, features])
    exactly_equal(ours.fc1.bias, theirs.fc1.bias[neurons])
    exactly_equal(ours.fc2.weight, theirs.fc2.weight[features][:, neurons])


def test_a_gate_counts_too(teacher_model):
    layers = [m for m in teacher_model.modules() if hasattr(m, "wi_1")]
    if not layers:
        pytest.skip("gated layers are T5 v1.1's")
    with torch.no_grad():
        for layer in layers:
            layer.wi_1.weight[::2] = 0.0
    student = narrowed(teacher_model, feed_forward=12)
    gates = [m.wi_1.weight for m in student.modules() if hasattr(m, "wi_1")]
    exactly_equal(gates, [layer.wi_1.weight[1::2] for layer in layers])


def test_position_biases_of_merged_heads_become_their_mean(teacher_model):
    biases = {n: w for n, w in teacher_model.state_dict().items() if "relative_attention" in n}
    student = narrowed(teacher_model, num_heads=1).state_dict()
    for name, value in biases.items():
        exactly_equal(student[name], value.mean(1, keepdim=True))


def test_stacks_may_differ(make_bart, inputs):
    teacher = make_bart(encoder_attention_heads=4, decoder_attention_heads=2, encoder_ffn_dim=40)
    student = narrowed(teacher, num_heads=2, feed_forward=16)
    assert student.model.encoder.layers[0].fc1.weight.shape == (16, 16)
    factor = 0.5 * 2**0.5  # two heads of 4 features into one of 8
    encoder, decoder = "model.encoder.layers.1.self_attn.{}", "model.decoder.layers.1.self_attn.{}"
    for name in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "out_proj.weight"):
        theirs, ours = teacher.state_dict(), student.state_dict()
        scale = factor if "q_proj" in name else 1.0
        exactly_equal(ours[encoder.format(name)], scale * theirs[encoder.format(name)])
        exactly_equal(ours[decoder.format(name)], theirs[decoder.format(name)])
    assert student(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("groups", "size", "kept"),
    [(1, 6, [0, 1, 2, 3, 4, 5]), (1, 2, [1, 3]), (2, 2, [0, 1, 3, 4]), (3, 1, [1, 3, 4])],
)
def test_strongest_of_each_part_in_order_and_the_first_of_equals(groups, size, kept):
    importance = torch.tensor([2.0, 5.0, 1.0, 7.0, 4.0, 4.0])
    assert strongest(importance, groups, size).tolist() == kept


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"num_heads": 3}, r"^student\.num_heads=3 .* one of 1, 2, 4, or null"),
        ({"num_heads": 8}, r"^student\.num_heads=8 .*4 in the encoder, 4 in .* one of 1, 2, 4,"),
        (
            {"width": 17},
            r"^student\.width=17 is more than the teacher's 16; write student\.width=16",
        ),
        ({"width": 6}, r"^student\.width=6 cannot be split into 4 .* such as student\.width=8, "),
        ({"feed_forward": 25}, r"^student\.feed_forward=25 .* write student\.feed_forward=24 or"),
        ({"width": 0}, r"^student\.width=0 is no whole number from 1; write one, or null"),
        ({"num_heads": True}, r"^student\.num_heads=True is no whole number"),
        ({"feed_forward": 8.0}, r"^student\.feed_forward=8.0 is no whole number"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make_bart, sizes, sentence):
    config = make_bart(encoder_attention_heads=4, decoder_attention_heads=4).config
    with pytest.raises(ValueError, match=sentence):
        narrow_config(config, family_of(config), Narrowing(**sizes))


def test_fewer_heads_take_a_width_that_the_teachers_could_not(make_bart):
    config = make_bart(encoder_attention_heads=4, decoder_attention_heads=4).config
    narrow = narrow_config(config, family_of(config), Narrowing(num_heads=2, width=6))
    assert (narrow.d_model, narrow.encoder_attention_heads, config.d_model) == (6, 2, 16)


def test_the_shipped_teacher_with_half_its_heads_can_be_aligned():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["distill=amad", "student.layers=3-1", "student.num_heads=2"])
    student, teacher, _, _ = build_models(cfg)
    words = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "attention_mask": torch.ones(1, 4).long()}
    batch = {**words, "labels": torch.tensor([[40, 41, 2]])}
    assert teacher is not None
    teacher.model.set_attn_implementation("eager")
    theirs, ours = teacher(batch, {"attentions"}), outputs(student.eval(), batch)
    assert [maps.shape[1] for maps in (theirs.cross_attentions[0], ours.cross_attentions[0])] == [
        4,
        2,
    ]
    assert build(cfg.distill)(ours, theirs, batch).total.isfinite()
