"""Which sizes the config keys and the axes of the weights of a family stand for."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

WIDTH = "width"
"""The features of the residual stream."""
PAIRS = "query-key pairs"
"""The inner features of one attention that queries and keys share."""
VALUES = "values"
"""The inner features of one attention that values and the output projection share."""
HEADS = "heads"
FEED_FORWARD = "feed-forward neurons"

Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Sizes:
    """The sizes of one stack."""

    width: int
    heads: int
    head_size: int
    feed_forward: int


@dataclass(frozen=True)
class Layout:
    """How a family names its sizes.

    width_key: config attribute of the residual stream's features. heads_keys, feed_forward_keys:
    of the encoder, of the decoder. head_size_key: where heads have a size of their own (T5's
    d_kv); None: the width divided by the heads. scales_scores: attention divides its scores by the
    square root of the head size. token_embeddings, queries: fnmatch patterns of state-dict keys,
    the latter of the projections to queries. axes: (pattern, what each axis of the tensor holds,
    None for one that never changes); the first pattern that matches counts.
    """

    heads_keys: tuple[str, str]
    feed_forward_keys: tuple[str, str]
    queries: str
    axes: tuple[tuple[str, Axes], ...]
    width_key: str = "d_model"
    head_size_key: str | None = None
    scales_scores: bool = True
    token_embeddings: str = "*.embed_tokens.weight"

    def axes_of(self, name: str) -> Axes:
        """What the axes of the weight of that name hold."""
        found = (axes for pattern, axes in self.axes if fnmatchcase(name, pattern))
        axes = next(found, None)
        assert axes is not None, f"{name} matches no pattern of its family's layout"
        return axes

    def is_query(self, name: str) -> bool:
        """Whether a weight is of a projection to queries."""
        return fnmatchcase(name, self.queries)

    def is_token_embedding(self, name: str) -> bool:
        """Whether a weight is a table of token embeddings."""
        return fnmatchcase(name, self.token_embeddings)

    def sizes(self, config: object) -> tuple[Sizes, Sizes]:
        """The sizes of (encoder, decoder) by a model config."""
        width = getattr(config, self.width_key)
        heads = [getattr(config, key) for key in self.heads_keys]
        own = getattr(config, self.head_size_key) if self.head_size_key else None
        inner = [getattr(config, key) for key in self.feed_forward_keys]
        encoder, decoder = (
            Sizes(width, n, own or width // n, neurons)
            for n, neurons in zip(heads, inner, strict=True)
        )
        return encoder, decoder


BART_LAYOUT = Layout(
    heads_keys=("encoder_attention_heads", "decoder_attention_heads"),
    feed_forward_keys=("encoder_ffn_dim", "decoder_ffn_dim"),
    queries="*.q_proj.*",
    axes=(
        ("*.[qk]_proj.weight", (PAIRS, WIDTH)),
        ("*.[qk]_proj.bias", (PAIRS,)),
        ("*.v_proj.weight", (VALUES, WIDTH)),
        ("*.v_proj.bias", (VALUES,)),
        ("*.out_proj.weight", (WIDTH, VALUES)),
        ("*.out_proj.bias", (WIDTH,)),
        ("*.fc1.weight", (FEED_FORWARD, WIDTH)),
        ("*.fc1.bias", (FEED_FORWARD,)),
        ("*.fc2.weight", (WIDTH, FEED_FORWARD)),
        ("*.fc2.bias", (WIDTH,)),
        ("*norm*.weight", (WIDTH,)),
        ("*norm*.bias", (WIDTH,)),
        ("*.embed_*.weight", (None, WIDTH)),
        ("*.shared.weight", (None, WIDTH)),
        ("lm_head.weight", (None, WIDTH)),
        ("final_logits_bias", (None, None)),
    ),
)
"""Of BART and of the families that share its layers and names."""

T5_LAYOUT = Layout(
    heads_keys=("num_heads", "num_heads"),
    feed_forward_keys=("d_ff", "d_ff"),
    head_size_key="d_kv",
    scales_scores=False,
    queries="*.q.weight",
    axes=(
        ("*.[qk].weight", (PAIRS, WIDTH)),
        ("*.v.weight", (VALUES, WIDTH)),
        ("*.o.weight", (WIDTH, VALUES)),
        ("*.relative_attention_bias.weight", (None, HEADS)),
        ("*.wi*.weight", (FEED_FORWARD, WIDTH)),  # wi, or wi_0 and wi_1 where it is gated
        ("*.wo.weight", (WIDTH, FEED_FORWARD)),
        ("*layer_norm.weight", (WIDTH,)),
        ("*.embed_tokens.weight", (None, WIDTH)),
        ("shared.weight", (None, WIDTH)),
        ("lm_head.weight", (None, WIDTH)),
    ),
)
"""Of T5 and mT5."""
