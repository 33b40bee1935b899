"""The learned state of a prepared model's quantizers, apart from the model's own weights."""

from collections.abc import Mapping

from torch import Tensor, nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer


def quantizer_state(model: nn.Module) -> dict[str, Tensor]:
    """Return learned scales, offsets and their flags by name; those of a tied matrix once."""
    return {
        f"{name}.{key}": tensor
        for name, quantizer in _outermost(model).items()
        for key, tensor in quantizer.state_dict().items()
    }


def weights_alone(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict that the unprepared model would have, ties under all their names."""
    every = model.named_modules(remove_duplicate=False)
    names = tuple(f"{name}." for name, module in every if isinstance(module, FakeQuantizer))
    return {key: t for key, t in model.state_dict().items() if not key.startswith(names)}


def load_quantizer_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a prepared model the state that `quantizer_state` took from an equally prepared one.

    Raises ValueError where the names differ: the recipe was another one.
    """
    own = quantizer_state(model)
    if own.keys() != state.keys():
        name = min(own.keys() ^ state.keys())
        found = "the saved quantizers lack" if name in own else "the prepared model has no"
        raise ValueError(
            f"{found} {name}; prepare the model with the quant config that it was trained with."
        )
    for name, quantizer in _outermost(model).items():
        quantizer.load_state_dict({key: state[f"{name}.{key}"] for key in quantizer.state_dict()})


def _outermost(model: nn.Module) -> dict[str, FakeQuantizer]:
    found = {n: module for n, module in model.named_modules() if isinstance(module, FakeQuantizer)}
    inner = {id(m) for q in found.values() for m in q.modules() if m is not q}
    return {name: quantizer for name, quantizer in found.items() if id(quantizer) not in inner}
