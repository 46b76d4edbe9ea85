"""A judge behind a local server: orders, ties, failures of every kind, and budgets."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from alignment.errors import UserError
from alignment.labeling import JudgeFailure, LanguageJudge, budgeted, labelled, verdict_in
from alignment.types import Candidate, Goal, Group, Message, PreferencePair, Prompt
from infra import artifacts
from infra.judge_client import Comparison, compare
from tasks.batches import Batch
from tasks.label import label
from tasks.recipe import parse_config
from tasks.start import identity
from tasks.steps import Place

label_plainly = label.__wrapped__

Reply = Callable[[str], tuple[int, str]]


class Server:
    """Answers each message as ``reply`` says, and keeps what it was asked."""

    def __init__(self, url: str):
        self.url = url
        self.asked: list[str] = []
        self.keys: list[str | None] = []


@contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            server.asked.append(message)
            server.keys.append(self.headers.get("Authorization"))
            status, text = reply(message)
            body = json.dumps({"choices": [{"message": {"content": text}}]}) if text != "garbage" else text
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            with suppress(BrokenPipeError):  # whoever asked may have stopped waiting
                self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def longer(message: str) -> tuple[int, str]:
    """The longer answer wins."""
    a, b = message.split("[Answer A]\n")[1].split("[Answer B]\n")
    b = b.split("\n\nEnd with")[0]
    return 200, "Because.\n" + ("A" if len(a.strip()) > len(b.strip()) else "B")


def judge_at(url: str, **changes: object) -> LanguageJudge:
    return LanguageJudge.model_validate({"url": url, "model": "m", **changes})


def no_wait(_: float) -> None:
    pass


def test_both_orders_are_asked_and_agree_on_the_longer_answer():
    with serving(longer) as server:
        answers = compare(judge_at(server.url), [Comparison("q", "long answer", "short")], no_wait)
    assert answers.judged == [("A", "B")]
    assert answers.calls == len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("A", "A"), ("Both fine.\n\n**B**\n", "B"), ("tie.", "tie"), ("[[A]]", "A")],
)
def test_the_last_line_names_the_winner(answer, verdict):
    assert verdict_in(answer) == verdict


@pytest.mark.parametrize("answer", ["", "A is better", "I prefer A or B", "A\nbut perhaps not"])
def test_an_answer_without_a_winner_is_no_verdict(answer):
    failure = verdict_in(answer)
    assert isinstance(failure, JudgeFailure)
    assert failure.kind == "unclear"


def test_a_busy_server_is_asked_again_and_the_calls_are_counted():
    replies = iter([(503, ""), (429, ""), (200, "A"), (200, "B")])
    with serving(lambda _: next(replies)) as server:
        answers = compare(judge_at(server.url, concurrency=1), [Comparison("q", "x", "y")], no_wait)
    assert answers == ([("A", "B")], 4)


@pytest.mark.parametrize(
    ("reply", "kind", "calls"),
    [
        (lambda _: (500, "A"), "status", 6),
        (lambda _: (200, "garbage"), "unreadable", 6),
        (lambda _: (200, "Neither."), "unclear", 2),
        (lambda _: (time.sleep(0.4), (200, "A"))[1], "timeout", 6),
    ],
)
def test_each_kind_of_failure_is_told_and_none_is_a_verdict(reply, kind, calls):
    with serving(reply) as server:
        answers = compare(judge_at(server.url, timeout=0.1), [Comparison("q", "x", "y")], no_wait)
    for verdict in answers.judged[0]:
        assert isinstance(verdict, JudgeFailure)
        assert verdict.kind == kind
    assert answers.calls == calls


def test_a_server_that_is_not_there_is_unreachable():
    with serving(longer) as server:
        url = server.url
    [(forward, _)] = compare(judge_at(url, retries=0), [Comparison("q", "x", "y")], no_wait).judged
    assert isinstance(forward, JudgeFailure)
    assert forward.kind == "unreachable"


def test_a_refused_key_stops_at_once():
    with (
        serving(lambda _: (401, "bad key")) as server,
        pytest.raises(UserError, match=r"answered 401: .*bad key.*Check label\.url"),
    ):
        compare(judge_at(server.url), [Comparison("q", "x", "y")], no_wait)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    with serving(longer) as server:
        judge = judge_at(server.url, key="JUDGE_TEST_KEY")
        monkeypatch.setenv("JUDGE_TEST_KEY", "s3cret")
        compare(judge, [Comparison("q", "x", "yy")], no_wait)
        monkeypatch.delenv("JUDGE_TEST_KEY")
        with pytest.raises(UserError, match="JUDGE_TEST_KEY, which is not set"):
            compare(judge, [Comparison("q", "x", "yy")], no_wait)
    assert server.keys == ["Bearer s3cret"] * 2
    assert "s3cret" not in judge.model_dump_json()


@pytest.mark.parametrize("changes", [{"key": "sk-abc123"}, {"template": "{prompt} {a}"}, {"url": "ftp://x"}])
def test_what_cannot_be_meant_is_refused_when_it_is_read(changes):
    with pytest.raises(ValidationError):
        LanguageJudge.model_validate({"url": "http://127.0.0.1:1", "model": "m", **changes})


def test_braces_and_names_of_blanks_in_an_answer_are_left_alone():
    judge = judge_at("http://127.0.0.1:1", template="{prompt}|{b}|{a}")
    assert judge.asked("say {a}", "{b} {x}", "{prompt}") == "say {a}|{prompt}|{b} {x}"


@pytest.mark.parametrize(
    ("forward", "backward"), [("A", "A"), ("B", "B"), ("tie", "tie"), ("A", "tie"), ("tie", "A"), ("B", "tie")]
)
def test_only_a_winner_in_both_orders_is_one(forward, backward):
    pair = PreferencePair(prompt_id="p", chosen=0, rejected=1, source="t")
    assert labelled(pair, forward, backward) is None


@pytest.fixture
def at(tmp_path: Path) -> Place:
    recipe = b'policy = "m"\nprompts = { type = "file", path = "p" }\nreward = { type = "scalar_head", model = "r" }'
    place = Place(store=str(tmp_path / "runs"), run="r", folder="round-000")
    artifacts.claim_run(place.store, "r", identity(parse_config(recipe, [], where="r", run="r")))
    return place


def batch_of(
    at: Place, *texts_P: tuple[str, str], members: dict[str, list[tuple[float, float]]] | None = None
) -> Batch:
    groups = [
        Group(
            prompt=Prompt.of((Message(role="user", content=f"q{i}"),), goal=Goal(text="Score 10.")),
            prompt_ids=(1,),
            candidates=tuple(
                Candidate(index=k, text=text, token_ids=(2,), finish_reason="stop") for k, text in enumerate(texts)
            ),
            rewards={"reward": (1.0, 0.0), **{name: rows[i] for name, rows in (members or {}).items()}},
        )
        for i, texts in enumerate(texts_P)
    ]
    pairs = [
        PreferencePair(prompt_id=g.prompt.id, chosen=0, rejected=1, source="best_worst", margin=1.0) for g in groups
    ]
    names = {kind: artifacts.recipe_of(kind, name="selected") for kind in ("groups", "pairs")}
    return Batch(
        name="round-000",
        groups=artifacts.commit_rows(at.store, "groups", names["groups"], groups, Group),
        pairs=artifacts.commit_rows(at.store, "pairs", names["pairs"], pairs, PreferencePair),
    )


def pairs_of(batch: Batch) -> list[PreferencePair]:
    return list(artifacts.read_rows(batch.pairs, PreferencePair))


def test_the_judges_order_replaces_the_rewards_and_ties_are_dropped(at: Place):
    """Longer wins: the first pair stands, the second turns and loses the reward's margin, the third is a tie by
    position (equal lengths: B both times). The judge sees no goal. Again, it is not asked."""
    batch = batch_of(at, ("longest", "short"), ("x", "longest"), ("one", "two"))
    with serving(longer) as server:
        made = label_plainly(batch, judge_at(server.url), at=at)
        assert label_plainly(batch, judge_at(server.url, retries=9), at=at) == made
    first, second = pairs_of(made)
    assert (first.chosen, first.margin, first.source) == (0, 1.0, "best_worst+judge")
    assert (second.chosen, second.rejected, second.margin) == (1, 0, None)
    assert [d["reason"] for d in made.pairs.facts["dropped"]] == ["the judge ties, or decides by position"]
    assert len(server.asked) == 6
    assert not any("Score 10." in message for message in server.asked)


def test_a_tie_may_be_half_a_label(at: Place):
    batch = batch_of(at, ("one", "two"))
    with serving(lambda _: (200, "tie")) as server:
        [pair] = pairs_of(label_plainly(batch, judge_at(server.url, ties="half"), at=at))
    assert (pair.p, pair.chosen) == (0.5, 0)


def test_a_judge_that_leaves_no_pair_is_told_by_ties_and_failures(at: Place):
    batch = batch_of(at, ("one", "two"), ("x", "longest"))
    with (
        serving(lambda message: (200, "tie" if "longest" in message else "what?")) as server,
        pytest.raises(UserError, match="of 2 pairs the judge tied 1 and failed at 1, so that none is left"),
    ):
        label_plainly(batch, judge_at(server.url, max_failure_rate=1.0), at=at)


def test_a_judge_that_never_answers_ends_the_step_with_the_way_out(at: Place):
    batch = batch_of(at, ("one", "two"), ("three", "four"))
    with (
        serving(lambda _: (time.sleep(0.5), (200, "A"))[1]) as server,
        pytest.raises(UserError, match=r"decided 0 of 2 pairs \(2 timeout; first: no answer within 0.1 s\)"),
    ):
        label_plainly(batch, judge_at(server.url, timeout=0.1, retries=0), at=at)


def test_a_pair_without_verdict_is_dropped_with_its_kind_where_that_is_allowed(at: Place):
    batch = batch_of(at, ("longest", "short"), ("odd", "longest"))
    with serving(lambda m: (200, "Hm.") if "odd" in m else longer(m)) as server:
        made = label_plainly(batch, judge_at(server.url, max_failure_rate=0.5), at=at)
    assert len(pairs_of(made)) == 1
    assert made.pairs.facts["dropped"][0]["reason"].startswith("unclear: the judge's last line is 'hm'")
    assert made.pairs.facts["metrics"]["label_failed_unclear"] == 2


def test_the_budget_is_exact_and_goes_to_what_members_dispute(at: Place):
    """Margins: the members agree on pairs 0 and 2 and differ on pair 1; a budget of one asks twice, about pair 1."""
    members = {"reward.a": [(1.0, 0.0)] * 3, "reward.b": [(1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]}
    batch = batch_of(at, ("longest", "x"), ("longest", "y"), ("longest", "z"), members=members)
    with serving(longer) as server:
        made = label_plainly(batch, judge_at(server.url, budget=1, order="disagreement"), at=at)
    assert len(server.asked) == 2
    assert [p.prompt_id for p in pairs_of(made)] == [pairs_of(batch)[1].prompt_id]
    assert made.pairs.facts["metrics"]["label_over_budget"] == 2
    with pytest.raises(UserError, match="needs the members of an ensemble"):
        budgeted(judge_at(server.url, order="disagreement"), [], pairs_of(batch))
