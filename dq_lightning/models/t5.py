"""T5 (Raffel et al., JMLR 2020), with T5 v1.1 and flan-T5 (gated, untied)."""

from torch import nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import T5_LAYOUT

FAMILY = ModelFamily(
    name="t5",
    model_types=("t5",),
    model_class=T5ForConditionalGeneration,
    attention_types=(T5Attention,),
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
