"""What a selector needs of the sampler, each refusal with both values and the way out."""

from collections.abc import Iterator

from alignment.sampling import Decoding, Independent, Sampler
from alignment.selection import APL, RSO, BestWorst, Selector, TopK


def selection_problems(select: Selector, sampler: Sampler) -> Iterator[str]:
    sampled = sampler.n
    match select:
        case RSO(num_accepted=kept) if kept < 2:
            yield f"select.num_accepted = {kept}: a pair needs two accepted candidates; raise it"
        case RSO(num_accepted=kept) if kept >= sampled:
            yield (
                f"select.num_accepted = {kept} of sampler.n = {sampled}: sample more than are kept, or acceptance "
                "decides nothing"
            )
        case RSO(target="initial") if not _plain_draws(sampler):
            yield (
                "select.target = 'initial' corrects for the policy that sampled: it needs sampler.type = "
                "'independent' with plain decoding (temperature 1, nothing cut off or penalised)"
            )
        case APL(acquire="entropy" | "hybrid" as acquire) if not _plain_draws(sampler):
            yield (
                f"select.acquire = {acquire!r} estimates entropy from completions of the policy itself: it needs "
                "sampler.type = 'independent' with plain decoding (temperature 1, nothing cut off or penalised)"
            )
        case TopK(k=k) if 2 * k > sampled:
            yield f"select.k = {k} needs {2 * k} candidates, sampler.n = {sampled}: raise sampler.n or lower k"
        case _ if sampled < 2:
            yield f"sampler.n = {sampled}: a pair needs two completions of one prompt; raise it"
        case BestWorst(pairs_per_prompt=pairs) if 2 * pairs > sampled:
            yield (
                f"select.pairs_per_prompt = {pairs} needs {2 * pairs} candidates, sampler.n = {sampled}: raise "
                "sampler.n or lower pairs_per_prompt"
            )
        case _:
            pass


def _plain_draws(sampler: Sampler) -> bool:
    """Whether every completion is drawn from the policy as losses see it, given the prompt alone."""
    if not isinstance(sampler, Independent):
        return False
    return sampler.decoding == Decoding(max_tokens=sampler.decoding.max_tokens)
