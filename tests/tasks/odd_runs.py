"""The runs a report must survive: unfinished, unmeasured, hostile, long."""

from report_runs import metrics, policy, prompt, rounds, whole_summary

from alignment.report import Curve, DroppedRows, Event, Example, PairExample, ReportData, RewardSpread, RoundAnswer
from alignment.summary import InitialSummary, RunSummary


def only(*, keep: int = 3, drop: str = "") -> ReportData:
    """The whole run with its first ``keep`` rounds, without the metrics whose name starts with ``drop``."""
    summary = whole_summary()

    def left(numbers: dict[str, float | None]) -> dict[str, float | None]:
        return {n: None if drop and n.startswith(drop) else v for n, v in numbers.items()}

    shown = tuple(r.model_copy(update={"metrics": left(dict(r.metrics))}) for r in summary.rounds[:keep])
    initial = summary.initial.model_copy(update={"metrics": left(dict(summary.initial.metrics))})
    return ReportData(summary=summary.model_copy(update={"rounds": shown, "initial": initial}))


def odd_reports() -> dict[str, ReportData]:
    """Every run that is not as it should be."""
    long, rtl = "word " * 2000 + "x" * 3000, "مرحبا بالعالم 🎉 שלום 👩‍👩‍👧"
    hostile = prompt(f"<script>alert(1)</script> | {rtl} {long}", '"><img src=http://evil.example/x.png>')
    said = (
        RoundAnswer(round=None, text=rtl),
        RoundAnswer(round=0, text=f"</pre><style>*{{}}</style>{long}", reward=-1e9, truncated=True),
    )
    offline = RunSummary(
        run="offline",
        store="./runs",
        config={"run": "offline", "rounds": 1, "pairs": {"path": "hh.jsonl"}, "reward": None},
        initial=InitialSummary(policy=policy(None)),
        rounds=(rounds()[0].model_copy(update={"metrics": {"pairs": 1000.0}}),),
    )
    return {
        "nothing yet": ReportData(summary=RunSummary(run="new", store="./runs", config={"run": "new", "rounds": 3})),
        "no finished round": only(keep=0),
        "one round": only(keep=1),
        "only rejected": ReportData(summary=whole_summary().model_copy(update={"rounds": rounds()[1:2]})),
        "no gold": only(drop="gold"),
        "no interval": ReportData(summary=_without_ends()),
        "offline pairs": ReportData(summary=offline, curves=(Curve(round=0, loss=(0.6931, 0.68, 0.66)),)),
        "hostile": ReportData(
            summary=only(keep=1).summary,
            examples=(Example(prompt=hostile, answers=said),),
            spreads=(RewardSpread(measure="reward", before=(1.0,), after=(1.0, 1.0), round=0),),
            pairs=(PairExample(round=0, prompt=hostile, chosen=said[0], rejected=said[1], source="human"),),
            dropped=(DroppedRows(round=0, step="score", reason="<b>bad</b> | pipe", count=1, items=("a|b\nc",)),),
            events=(Event(text="<script>alert(2)</script>"),),
            curves=(Curve(round=0, loss=(0.6931,)),),
        ),
        "many rounds": _many(24),
    }


def _without_ends() -> RunSummary:
    def left(numbers: dict[str, float | None]) -> dict[str, float | None]:
        return {n: v for n, v in numbers.items() if not n.endswith(("_low", "_high"))}

    summary = whole_summary()
    shown = tuple(r.model_copy(update={"metrics": left(dict(r.metrics))}) for r in summary.rounds)
    return summary.model_copy(
        update={"rounds": shown, "initial": InitialSummary(metrics=left(dict(summary.initial.metrics)))}
    )


def _many(count: int) -> ReportData:
    first = rounds()[0]
    many = tuple(
        first.model_copy(
            update={
                "round": k,
                "verdict": "rejected" if k % 5 == 3 else "promoted",
                "metrics": metrics(6.5 + 0.1 * k, 0.33 + 0.05 * k, 0.55, 0.3 * k, 25 + 0.1 * k, 0.13 - 0.001 * k),
            }
        )
        for k in range(count)
    )
    curves = tuple(Curve(round=k, loss=(0.6931, 0.66, 0.64)) for k in range(count))
    return ReportData(
        summary=whole_summary().model_copy(update={"rounds": many, "config": {"rounds": count}}), curves=curves
    )
