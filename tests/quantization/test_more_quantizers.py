"""What the min-max, TBT, zero-dropping and group quantizers compute."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from dq_lightning.quantization.asymmetric import AsymmetricQuantizer
from dq_lightning.quantization.elastic import ElasticQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.linear_zero_drop import LinearZeroDropQuantizer
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.per_group import PerGroupQuantizer
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.tbt import tbt, tbt_activation
from dq_lightning.quantization.tbt_binary import TbtBinaryQuantizer
from dq_lightning.quantization.tbt_ternary import TbtTernaryQuantizer

ORACLES = Path(
    os.environ.get("DQ_LIGHTNING_ORACLES", Path(__file__).parents[3] / "shared" / "oracles")
)


def test_asymmetric_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    quantizer = AsymmetricQuantizer(2, "per_row")
    assert torch.allclose(quantizer(x)[0], torch.tensor([0.0, 0.0, 3.0, 3.0, 9.0]))
    torch.testing.assert_close(quantizer(x)[1], x[1])
    assert AsymmetricQuantizer(1, "per_row")(x)[0].unique().tolist() == pytest.approx([0, 9])
    assert quantizer.quantize(x).codes[0].tolist() == [0, 0, 1, 1, 3]


@pytest.mark.skipif(not ORACLES.is_dir(), reason="no vectors of the published code here")
def test_asymmetric_is_the_published_code() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = numpy.load(ORACLES / "quantizers.npz")
    index = json.loads((ORACLES / "quantizers_index.json").read_text())
    cases = index if isinstance(index, list) else index["cases"]
    cases = [c for c in cases if c["quantizer"] == "asym" and c["case"].endswith("/f64")]
    assert cases
    for case in cases:
        values = {
            name: torch.from_numpy(arrays[case[name]]).double()
            for name in ("input", "gradout", "out", "gradin")
        }
        x = values["input"].requires_grad_()
        granularity = "per_tensor" if case["layerwise"] else "per_row"
        quantizer = AsymmetricQuantizer(case["bits"], granularity, case["clip"])
        per_head = not case["layerwise"] and x.dim() == 4  # one scale a [batch, head]
        result = quantizer(x.flatten(2)).view_as(x) if per_head else quantizer(x)
        result.backward(values["gradout"])
        for ours, theirs in ((result, values["out"]), (x.grad, values["gradin"])):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9, msg=case["case"])


def test_tbt_at_each_width() -> None:
    x = torch.tensor([[0.5, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    assert tbt(1, "per_row")(x).tolist() == [[0.5, -0.5, 0.5, 0.5], [0.0] * 4]
    assert [type(tbt(bits, "per_row")) for bits in (1, 2, 3, 8)] == [
        TbtBinaryQuantizer,
        TbtTernaryQuantizer,
        SymmetricQuantizer,
        SymmetricQuantizer,
    ]
    assert [type(tbt_activation(bits, "per_token")) for bits in (1, 2, 8)] == [
        ElasticQuantizer,
        ElasticQuantizer,
        SymmetricQuantizer,
    ]
    assert [type(tbt_activation(bits, "per_token", signed=False)) for bits in (1, 2, 8)] == [
        ElasticQuantizer,
        ElasticQuantizer,
        AsymmetricQuantizer,
    ]


def test_zeros_of_masked_positions_change_no_level() -> None:
    row, masked = torch.tensor([[0.25, 0.35, 0.4]]), torch.tensor([[0.25, 0.35, 0.4, 0.0]])
    quantizer = AsymmetricQuantizer(2, "per_token", include_zero=True)
    assert torch.equal(quantizer(masked)[:, :3], quantizer(row))
    assert quantizer(masked)[0, 3] == 0.0
    without = AsymmetricQuantizer(2, "per_token")
    assert not torch.equal(without(masked)[:, :3], without(row))


def test_zero_drop_by_hand() -> None:
    # Boundaries -1, -0.2, 0.6, 1.4, 2.2: -0.2 becomes 0.
    x = torch.tensor([-1.0, -0.25, 0.1, 0.3, 1.2, 2.2])
    quantizer = LinearZeroDropQuantizer(2)
    expected = torch.tensor([-1.0, 0.0, 0.0, 0.6, 1.4, 2.2])
    torch.testing.assert_close(quantizer(x), expected)
    assert (quantizer(x) == 0).tolist() == (expected == 0).tolist()
    assert quantizer.quantize(x).codes.tolist() == [0, 1, 1, 2, 3, 4]
    assert quantizer.quantize(x).dequantize_().tolist() == quantizer(x).tolist()


def test_zero_drop_leaves_ranges_without_zero() -> None:
    x = torch.tensor([[3.0, 4.0, 5.0], [7.0, 7.0, 7.0], [-1.0, 0.0, 1.0]])
    result = LinearZeroDropQuantizer(1, "per_row")(x)
    torch.testing.assert_close(result, x)
    assert result[2, 1] == 0


def test_groups_are_rows_of_their_own() -> None:
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    for kind in (SymmetricQuantizer, AsymmetricQuantizer, LinearZeroDropQuantizer):
        rows = kind(3, "per_row")
        result = PerGroupQuantizer(3, partial(kind, granularity="per_row"), group_size=4)(x)
        expected = torch.cat([rows(part) for part in x.split(4, dim=-1)], -1)
        assert torch.equal(result, expected)
    with pytest.raises(ValueError, match="per_row"):
        PerGroupQuantizer(3, partial(SymmetricQuantizer, granularity="per_tensor"))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AsymmetricQuantizer(9, "per_row"), "1 to 8 bits"),
        (lambda: TbtBinaryQuantizer(2), "quantizer tbt"),
        (lambda: ElasticQuantizer(3), "tbt_activation"),
        (lambda: LsqQuantizer(1), "signed LSQ quantizer has 2 to 8"),
        (lambda: LsqPlusQuantizer(1), "weights has 2 to 8"),
        (lambda: LinearZeroDropQuantizer(0), "1 to 8 bits"),
    ],
)
def test_bad_arguments_say_what_to_write(build: type[FakeQuantizer], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
