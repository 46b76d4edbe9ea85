"""Worlds, opened: what ``alignment.worlds`` describes, as prompts, demonstrations, labelled pairs and a tokenizer."""

import hashlib
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_never

import numpy as np

from alignment.errors import UserError
from alignment.testbed import sandbox
from alignment.types import Group, Message, Prompt, digest_of, seed_of
from alignment.worlds import Demonstration, LabelledPair, Preferences, Sandbox, Sentences, World
from infra.open_world import OpenWorld
from infra.preference_world import open_preferences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HELD_OUT = 0.2
"""Share of a Sentences world that is kept for prompts, decided by each sentence's digest."""


def open_world(world: World) -> OpenWorld:
    """Raises UserError when the world's file is absent or not what it says."""
    match world:
        case Sandbox():
            return OpenWorld(
                prompts=partial(sandbox.prompts, world),
                demonstrations=partial(_sandbox_demonstrations, world),
                labelled_pairs=partial(sandbox.labelled_pairs, world),
                tokenizer=_word_tokenizer,
            )
        case Sentences():
            kept, held = _split(world)
            return OpenWorld(
                prompts=partial(_sentence_prompts, held, world),
                demonstrations=partial(_sentence_demonstrations, kept, world),
                labelled_pairs=partial(_sentence_pairs, kept),
                tokenizer=partial(_byte_tokenizer, kept, world),
            )
        case Preferences():
            return open_preferences(world)
        case _:
            assert_never(world)


def _sandbox_demonstrations(world: Sandbox, count: int) -> list[Demonstration]:
    """The first of each kind, refining ones last: training shuffles them."""
    refining = round(world.refine_share * count)
    return sandbox.demonstrations(world, count - refining) + sandbox.refinements(world, refining)


def world_identity(world: World) -> dict[str, object]:
    """What a world's texts depend on, for recipes: its fields, with the digest of its file in place of the path, or
    the digest of the code that writes them."""
    fields = world.model_dump(mode="json")
    match world:
        case Sandbox():
            sources = sorted(Path(sandbox.__file__).parent.glob("sandbox*.py"))
            return {**fields, "code": hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()}
        case Sentences() | Preferences():
            fields["path"] = hashlib.sha256(_existing(world.path).read_bytes()).hexdigest()
            return fields
        case _:
            assert_never(world)


def compared_pairs(world: World, groups: Iterable[Group], count: int | None) -> list[LabelledPair]:
    """``count`` labelled pairs out of a policy's completions, in the order of the groups; None takes all.

    Raises UserError when they give fewer, or when the world cannot label.
    """
    if not isinstance(world, Sandbox):
        raise UserError(f"labels: a world of type {world.type!r} has no labeller; leave labels out")
    pairs = [pair for g in groups for pair in sandbox.compared(world, g.prompt, [c.text for c in g.candidates])]
    if count is not None and len(pairs) < count:
        raise UserError(
            f"examples = {count} of the reward model, but its label samples give {len(pairs)} pairs of different "
            "texts; lower it, or raise labels.prompts"
        )
    return pairs[:count]


def _word_tokenizer(context: int) -> "PreTrainedTokenizerFast":
    from infra.tokenizing import word_level

    return word_level(sandbox.vocabulary(), context)


def _existing(path: str) -> Path:
    if not (found := Path(path)).is_file():
        raise UserError(f"{path}: no such file; give the path of the world's zip")
    return found


def _lines(path: str, pattern: str) -> list[str]:
    """The non-empty lines of the one member of a zip whose name, without its folder, matches the pattern.

    UTF-8; C1 control characters are read as the cp1252 punctuation they are left over from.
    """
    try:
        with zipfile.ZipFile(_existing(path)) as archive:
            members = [name for name in archive.namelist() if fnmatch(name.rsplit("/", 1)[-1], pattern)]
            if len(members) != 1:
                raise UserError(f"{path}: {len(members)} members match {pattern!r}, exactly one must: {members[:4]}")
            text = archive.read(members[0]).decode("utf-8")
    except zipfile.BadZipFile as e:
        raise UserError(f"{path}: not a zip file ({e}); give the path of the world's zip") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: {pattern} is not UTF-8 at byte {e.start}; convert it first") from e
    mended = "".join(_mended(c) if "\x80" <= c <= "\x9f" else c for c in text)
    return [line.strip() for line in mended.split("\n") if line.strip()]


def _mended(control: str) -> str:
    """The cp1252 character of a C1 control; a space for the five that cp1252 leaves undefined."""
    return control.encode("latin-1").decode("cp1252", errors="replace").replace("\ufffd", " ")


class Corpus(NamedTuple):
    """Distinct sentences of both classes, each in the order of its digest."""

    positive: list[str]
    negative: list[str]

    @property
    def both(self) -> list[str]:
        return sorted(self.positive + self.negative, key=_rank)


def _rank(sentence: str) -> str:
    return digest_of(sentence)


def _split(world: Sentences) -> tuple[Corpus, Corpus]:
    """(kept for training, held out for prompts). A sentence of both classes says nothing about either and is in
    neither."""
    positive, negative = (set(_lines(world.path, pattern)) for pattern in (world.positive, world.negative))
    kept, held = Corpus([], []), Corpus([], [])
    for into_kept, into_held, sentences in (
        (kept.positive, held.positive, positive - negative),
        (kept.negative, held.negative, negative - positive),
    ):
        for sentence in sorted(sentences, key=_rank):
            (into_held if int(_rank(sentence)[:8], 16) < HELD_OUT * 2**32 else into_kept).append(sentence)
    if not kept.positive or not kept.negative:
        raise UserError(
            f"{world.path}: {len(kept.positive)} positive and {len(kept.negative)} negative sentences to train on; "
            "both classes need some"
        )
    return kept, held


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _sentence_prompts(held: Corpus, world: Sentences, count: int) -> list[Prompt]:
    """The first words of held-out sentences of both classes; the sentence itself is in the metadata."""
    made: dict[str, Prompt] = {}
    for sentence in held.both:
        words = sentence.split(" ")
        if len(words) > world.prompt_words:
            prompt = Prompt.of((_user(" ".join(words[: world.prompt_words])),), metadata={"sentence": sentence})
            made.setdefault(prompt.id, prompt)
    if len(made) < count:
        raise UserError(f"prompts.count = {count}, but {world.path} gives {len(made)} distinct prompts; lower it")
    return list(made.values())[:count]


def _sentence_demonstrations(kept: Corpus, world: Sentences, count: int) -> list[Demonstration]:
    """Whole sentences as completions of an empty prompt: the policy learns the prompt's words too, and a prompt is
    a prefix of what it has seen."""
    sentences = kept.both
    if len(sentences) < count:
        raise UserError(
            f"policy.examples = {count}, but {world.path} has {len(sentences)} sentences to train on; lower it and "
            "raise epochs"
        )
    return [
        Demonstration(messages=(_user(""), Message(role="assistant", content=sentence)))
        for sentence in sentences[:count]
    ]


def _sentence_pairs(kept: Corpus, count: int) -> list[LabelledPair]:
    """A random positive sentence preferred to a random negative one, both as completions of an empty prompt: they
    share no first words, and the reward model reads prompt and completion as one text anyway."""
    rng = np.random.default_rng(seed_of("sentences", "labels"))
    prompt = Prompt.of((_user(""),))
    return [
        LabelledPair(
            prompt=prompt,
            chosen=kept.positive[int(rng.integers(len(kept.positive)))],
            rejected=kept.negative[int(rng.integers(len(kept.negative)))],
        )
        for _ in range(count)
    ]


def _byte_tokenizer(kept: Corpus, world: Sentences, context: int) -> "PreTrainedTokenizerFast":
    from infra.tokenizing import byte_level

    return byte_level(kept.both, world.vocabulary, context)


@cache
def _opinions(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """(positive, negative) words of an opinion lexicon's zip; lines that start with a semicolon are comments."""
    positive, negative = (
        frozenset(line for line in _lines(path, name) if not line.startswith(";"))
        for name in ("positive-words.txt", "negative-words.txt")
    )
    return positive, negative


def opinion_lexicon(prompt: Prompt, completion: str, *, path: str) -> float:
    """(positive - negative) / words of the completion, in [-1, 1]; 0 when it has no word.

    A ``Verifier`` function. ``path`` is a zip with positive-words.txt and negative-words.txt, one word a line (Hu and
    Liu's opinion lexicon). Raises UserError when it is not.
    """
    positive, negative = _opinions(path)
    words = completion.lower().split()
    if not words:
        return 0.0
    return (sum(word in positive for word in words) - sum(word in negative for word in words)) / len(words)
