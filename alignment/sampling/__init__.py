"""Samplers: how a round's completions are drawn. The policy and the reward arrive as arguments."""

from typing import Annotated

from pydantic import Field

from alignment.sampling.controls import ReflectionControl
from alignment.sampling.generations import generations
from alignment.sampling.growing import Refine
from alignment.sampling.independent import Independent, PreferenceConditioned
from alignment.sampling.reflective import Greedy, Reflective
from alignment.sampling.requests import Decoding, Drawn, Generate, Request, Score

__all__ = [
    "Decoding",
    "Drawn",
    "Generate",
    "Greedy",
    "Independent",
    "PreferenceConditioned",
    "Refine",
    "ReflectionControl",
    "Reflective",
    "Request",
    "Sampler",
    "Score",
    "generations",
]

Sampler = Annotated[
    Independent | PreferenceConditioned | Reflective | Greedy | ReflectionControl, Field(discriminator="type")
]
"""``n`` completions per prompt, at most ``tokens_at_most`` tokens of the policy; one with ``reads_rewards`` follows the
reward on the way, so that its completions depend on it."""
