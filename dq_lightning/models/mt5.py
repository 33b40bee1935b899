"""mT5 (Xue et al., NAACL 2021): gated; released checkpoints are untied."""

from torch import nn
from transformers import MT5ForConditionalGeneration
from transformers.models.mt5.modeling_mt5 import MT5Attention

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import T5_LAYOUT

FAMILY = ModelFamily(
    name="mt5",
    model_types=("mt5",),
    model_class=MT5ForConditionalGeneration,
    attention_types=(MT5Attention,),
    token_embedding_types=(nn.Embedding,),
    keep_embeddings=("*.relative_attention_bias",),
    feed_forward_outputs=("*.wo",),
    head="lm_head",
    encoder_layers_key="num_layers",
    decoder_layers_key="num_decoder_layers",
    encoder_layer_prefix="encoder.block.",
    decoder_layer_prefix="decoder.block.",
    dropout_keys=("dropout_rate",),
    layout=T5_LAYOUT,
    first_layer_only=("layer.0.SelfAttention.relative_attention_bias.weight",),
    self_attention="layer.0.SelfAttention",
    query_key_value=("q", "k", "v"),
)
