"""Whether two models speak in the same tokens: told from their files, without loading a tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.types import digest_of
from infra.model_folder import read_json


def tokenizer_digest(folder: Path) -> str:
    """Digest of all that decides a conversation's token ids: vocabulary, merges, rules, special tokens and chat
    template. The padding token is left out: it is part of no sequence. UserError where there is no tokenizer.json."""
    return digest_of(tokenizer_parts(folder))


def same_tokenizer(a: Path, b: Path) -> None:
    """UserError where two model folders would tokenise a conversation differently, naming the first difference."""
    ours, theirs = tokenizer_parts(a), tokenizer_parts(b)
    for part, value in ours.items():
        if value != theirs[part]:
            raise UserError(
                f"the tokenizers of {a} (digest {digest_of(ours)[:12]}) and {b} (digest {digest_of(theirs)[:12]}) "
                f"differ: {_difference(part, value, theirs[part])}. Give models that share one tokenizer"
            )


def tokenizer_parts(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_digest`` digests, by name."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} has no tokenizer.json: save a fast tokenizer there")
    tokenizer, config = read_json(path), _config(folder)
    model = dict(tokenizer.get("model") or {})
    vocabulary, merges = model.pop("vocab", {}), model.pop("merges", [])
    if isinstance(vocabulary, list):  # a unigram model: pieces with scores, the place is the id
        model["scores"] = [score for _, score in vocabulary]
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    added = tokenizer.get("added_tokens") or []
    return {
        "vocabulary": {**vocabulary, **{token["content"]: token["id"] for token in added}},
        "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        # a default that one version writes out and another does not is no difference
        "rules": {
            k: v for k, v in {**model, **{r: tokenizer.get(r) for r in ("normalizer", "pre_tokenizer")}}.items() if v
        },
        "added": {token["content"]: token["id"] for token in added},
        "special tokens": sorted(token["content"] for token in added if token.get("special")),
        "bos_token": _token(config.get("bos_token")),
        "eos_token": _token(config.get("eos_token")),
        "chat template": _chat_template(folder, config),
    }


def _config(folder: Path) -> dict[str, Any]:
    files = (folder / "special_tokens_map.json", folder / "tokenizer_config.json")
    return {key: value for path in files if path.is_file() for key, value in read_json(path).items()}


def _token(value: Any) -> str | None:
    return value["content"] if isinstance(value, dict) else value


def _chat_template(folder: Path, config: Mapping[str, Any]) -> Any:
    beside = folder / "chat_template.jinja"
    return beside.read_text(encoding="utf-8") if beside.is_file() else config.get("chat_template")


def _difference(part: str, a: Any, b: Any) -> str:
    match a, b:
        case dict(), dict():
            key = min(
                (k for k in a.keys() | b.keys() if a.get(k) != b.get(k)), key=lambda k: (str(a.get(k, b.get(k))), k)
            )
            return f"{part} {key!r} is {_short(a.get(key))} and {_short(b.get(key))}"
        case list(), list():
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            return f"{part} from number {at} on are {_short(a[at : at + 2])} and {_short(b[at : at + 2])}"
        case _:
            return f"{part} is {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"
