"""The character tokenizer of the grapheme-to-phoneme task."""

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dq_lightning.data.cmudict import LETTERS, PHONEMES

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")


def build_g2p_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter, one token a phoneme: "cat" -> c a t </s>, "K AE T" -> K AE T </s>.

    Letters are lower case and phonemes upper case, so one vocabulary of 70 tokens serves both
    sides and both stacks share one embedding, as in BART.
    """
    tokens = [*SPECIAL_TOKENS, *LETTERS, *PHONEMES]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(  # pyright: ignore[reportAttributeAccessIssue]
        Regex(r"[A-Z]+|[^A-Z\s]"), behavior="removed", invert=True
    )
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="$A </s>", special_tokens=[("</s>", tokens.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )
