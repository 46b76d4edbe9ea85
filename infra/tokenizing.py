"""Tokenizers of models trained from scratch, as transformers fast tokenizers with a chat template."""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.errors import UserError

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
ROLES = ("<system>", "<user>", "<assistant>")

_ASSISTANT = "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m.role + '>' }}"
    "{% if m.role == 'assistant' %}" + _ASSISTANT + "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""Every turn behind a token of its role; assistant turns end with EOS."""
TEXT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}" + _ASSISTANT + "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
"""Plain text: a completion continues its prompt as if both were one text."""


def _finished(
    tokenizer: Tokenizer, template: str, context: int, special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(special),
        model_max_length=context,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def word_level(vocabulary: Iterable[str], context: int) -> PreTrainedTokenizerFast:
    """One token per word or punctuation mark, with the chat template CHAT.

    Words carry their leading space ("▁basket"), so decoding gives readable text, and encoding the decoded text gives
    the tokens back. Runs of white space, blank lines too, read as one space; an unknown word becomes ``<unk>``.
    """
    pieces = [f"▁{word}" if word[0].isalnum() else word for word in vocabulary]
    special = (PAD, BOS, EOS, UNK, *ROLES)
    ids = {piece: i for i, piece in enumerate(dict.fromkeys([*special, *pieces]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(r"▁?\w+|[^\w▁]"), behavior="removed", invert=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    made = _finished(tokenizer, CHAT, context, ROLES)
    made.unk_token = UNK
    return made


def byte_level(texts: Sequence[str], size: int, context: int, *, chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on texts, with the chat template TEXT, or CHAT for conversations; encodes and decodes any
    text without loss.

    Spaces belong to the word that follows, so a text cut before a space tokenises as its two parts do. Raises
    UserError when ``size`` has no room for the 256 bytes and the special tokens.
    """
    roles = ROLES if chat else ()
    special = [PAD, BOS, EOS, *roles]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < len(alphabet) + len(special):
        raise UserError(
            f"world.vocabulary = {size}: byte-level BPE needs at least {len(alphabet) + len(special)} tokens; raise it"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, CHAT if chat else TEXT, context, roles)
