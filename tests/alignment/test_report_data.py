from alignment.report import DroppedRows, StepCost, group_dropped, step_costs
from alignment.summary import PolicyName, RoundSummary, RunSummary
from alignment.types import Dropped, Step


def test_reasons_that_differ_in_numbers_alone_are_counted_together():
    rows = [
        Dropped(step="prompts", item="a.jsonl:3", reason="has 301 tokens, the context holds 256"),
        Dropped(step="prompts", item="a.jsonl:9", reason="has 1,288 tokens, the context holds 256"),
        Dropped(step="select", item="p1", reason="all rewards equal"),
    ]
    assert group_dropped(rows, round=None) == (
        DroppedRows(
            round=None,
            step="prompts",
            reason="has # tokens, the context holds #",
            count=2,
            items=(
                "a.jsonl:3: has 301 tokens, the context holds 256",
                "a.jsonl:9: has 1,288 tokens, the context holds 256",
            ),
        ),
        DroppedRows(round=None, step="select", reason="all rewards equal", count=1, items=("p1",)),
    )


def test_one_reason_repeated_keeps_its_numbers_and_shows_a_few_items():
    rows = [Dropped(step="score", item=f"p{i}", reason="took over 30 s") for i in range(5)]
    (group,) = group_dropped(rows, round=2)
    assert (group.reason, group.count, group.items, group.round) == ("took over 30 s", 5, ("p0", "p1", "p2"), 2)


def test_nothing_dropped_is_no_group():
    assert group_dropped([], round=0) == ()


def test_costs_follow_the_rounds_and_unknown_tokens_stay_unknown():
    steps = {
        "generate": Step(uri="u", recipe="g", seconds=4.0, reused=False),
        "select": Step(uri="u", recipe="s", seconds=0.5, reused=True),
    }
    policy = PolicyName(uri="u", digest="d")
    done = RoundSummary(round=0, verdict="promoted", reasons=(), policy=policy, steps=steps, metrics={})
    run = RunSummary(run="r", store="s", config={}, rounds=(done,))
    assert step_costs(run, {(0, "generate"): 900}) == (
        StepCost(round=0, step="generate", seconds=4.0, tokens=900, reused=False),
        StepCost(round=0, step="select", seconds=0.5, tokens=None, reused=True),
    )
