"""A lineage drawn: every object once, no line across a text, and nothing in it that its data could make run."""

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from small_runs import small_run

from alignment.errors import UserError
from infra import storage
from infra.lineage import Address, Lineage, Node, trace
from tasks.lineage import lineage_text, write_picture
from tasks.lineage_picture import lineage_svg
from tasks.lineage_plan import LETTERS, NODE

SVG = "{http://www.w3.org/2000/svg}"
LETTER = 6.65
"""Width of a letter of 11 px in the widest of the usual fonts of one width."""
Point = tuple[float, float]


def run_lineage(folder: Path, rounds: int) -> Lineage:
    run = small_run(str(folder / "store"), folder / "made", rounds=rounds)
    return trace(Address(run.store, run.key(f"round-{rounds - 1:03d}/train")))


def random_lineage(seed: int, size: int = 40) -> Lineage:
    """Objects with up to four parents among those after them."""
    rng = random.Random(seed)
    keys = [f"{rng.choice(['policy', 'groups', 'reward_model'])}/{number:012d}" for number in range(size)]
    nodes = [
        Node(
            key=key,
            uri=key,
            digest="d",
            rows=rng.choice([None, 123456]),
            parents=tuple(sorted(rng.sample(keys[number + 1 :], min(rng.randrange(1, 5), size - number - 1)))),
            names=tuple(f"run/round-{number:03d}/a-step-with-a-long-name-{k}" for k in range(rng.randrange(5))),
        )
        for number, key in enumerate(keys)
    ]
    reached = {nodes[0].key}
    for node in nodes:
        reached |= set(node.parents) if node.key in reached else set()
    return Lineage(store="s", artifact=keys[0], nodes=tuple(node for node in nodes if node.key in reached))


def texts(svg: ElementTree.Element) -> Iterator[tuple[str, float, float, float, float]]:
    """Each text, and the box it takes up at most: left, top, right, bottom."""
    for text in svg.iter(f"{SVG}text"):
        said = text.text or ""
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        size = {"title": 20, "kind": 13, "muted": 13}.get(text.attrib["class"], 11)
        width = len(said) * (LETTER if size == 11 else size * 0.62)
        left = x - width if text.attrib["text-anchor"] == "end" else x
        yield said, left, y - size * 0.8, left + width, y + size * 0.25


def points(path: str) -> list[Point]:
    """Points along a path of M, L, H, C and Q, close to each other."""
    here, found = (0.0, 0.0), []
    for command, rest in re.findall(r"([MLHCQ])([^MLHCQ]*)", path):
        numbers = [float(word) for word in rest.split()]
        if command == "H":
            numbers = [numbers[0], here[1]]
        controls = [here, *zip(numbers[::2], numbers[1::2], strict=True)]
        if command != "M":
            found += [bezier(controls, step / 60) for step in range(61)]
        here = controls[-1]
    return found


def bezier(controls: list[Point], t: float) -> Point:
    while len(controls) > 1:
        controls = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for a, b in pairwise(controls)]
    return controls[0]


@pytest.fixture(params=["run", *range(8)])
def lineage(request: pytest.FixtureRequest, tmp_path: Path) -> Lineage:
    return run_lineage(tmp_path, 3) if request.param == "run" else random_lineage(request.param)


def test_no_line_goes_across_a_text_and_no_text_out_of_its_node_or_the_page(lineage: Lineage):
    svg = ElementTree.fromstring(lineage_svg(lineage))
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    boxes = list(texts(svg))
    assert width <= 1200
    lines = [line.attrib["d"] for line in svg.iter(f"{SVG}path") if "wire" in line.attrib["class"]]
    assert lines
    for x, y in (point for line in lines for point in points(line)):
        assert 0 < x < width
        assert 0 < y < height
        crossed = [said for said, left, top, right, bottom in boxes if left < x < right and top < y < bottom]
        assert crossed == []
    for group in svg.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        left, top = float(rect.attrib["x"]), float(rect.attrib["y"])
        for said, *inside in texts(group):
            assert left < inside[0], said
            assert inside[2] < left + NODE, said
            assert top < inside[1] < inside[3] < top + float(rect.attrib["height"]), said


def test_every_object_is_drawn_once_and_every_use_of_it_has_a_line(lineage: Lineage):
    """A line ends at each node with as many arrows as the node has parents: each comes from another one."""
    svg = ElementTree.fromstring(lineage_svg(lineage))
    drawn = [group.find(f"{SVG}title").text.split("\n")[0] for group in svg.iter(f"{SVG}g")]
    assert sorted(drawn) == sorted(node.key for node in lineage.nodes)
    ends: dict[Point, set[str]] = {}
    for line in svg.iter(f"{SVG}path"):
        if "wire" in line.attrib["class"]:
            ends.setdefault(points(line.attrib["d"])[-1], set()).add(line.find(f"{SVG}title").text)
    for group, key in zip(svg.iter(f"{SVG}g"), drawn, strict=True):
        rect = group.find(f"{SVG}rect").attrib
        left, middle = float(rect["x"]), float(rect["y"]) + float(rect["height"]) / 2
        come = {of for (x, y), keys in ends.items() if abs(x - left) < 0.1 and abs(y - middle) < 0.1 for of in keys}
        assert come == set(next(node for node in lineage.nodes if node.key == key).parents)


def test_nodes_of_one_picture_do_not_lie_upon_each_other(lineage: Lineage):
    rects = [group.find(f"{SVG}rect").attrib for group in ElementTree.fromstring(lineage_svg(lineage)).iter(f"{SVG}g")]
    places = [(float(r["x"]), float(r["y"]), float(r["height"])) for r in rects]
    for number, (x, y, height) in enumerate(places):
        for other_x, other_y, other_height in places[:number]:
            assert x != other_x or y + height < other_y or other_y + other_height < y


def test_the_same_lineage_gives_the_same_picture():
    assert lineage_svg(random_lineage(1)) == lineage_svg(random_lineage(1))


def test_text_is_text_and_nothing_of_it_runs(tmp_path: Path):
    """An address with markup, quotes and a control character, which XML has no way to write."""
    name = 'run/<script>alert("1")</script>\x07&'
    node = Node(key="policy/abc", uri="x", digest="d", names=(name,))
    lineage = Lineage(store='</text><script>alert("2")</script>', artifact="policy/abc", nodes=(node,))
    for path in (tmp_path / "l.svg", tmp_path / "l.html"):
        write_picture(lineage, path)
        assert "<script" not in path.read_text()
    svg = ElementTree.parse(tmp_path / "l.svg").getroot()
    assert any(said.startswith("…") and len(said) == LETTERS for said, *_ in texts(svg))
    assert '<script>alert("1")</script>\ufffd&' in svg.find(f"{SVG}g").find(f"{SVG}title").text


def test_a_picture_needs_nothing_from_elsewhere(tmp_path: Path):
    write_picture(run_lineage(tmp_path, 1), tmp_path / "l.html")
    page = (tmp_path / "l.html").read_text()
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in page
    assert page.startswith("<!doctype html>")


def test_a_missing_object_is_drawn_as_missing(tmp_path: Path):
    run = small_run(str(tmp_path / "store"), tmp_path / "made", rounds=1)
    storage.remove(run.store, f"objects/{run.key('round-000/score')}")
    lineage = trace(Address(run.store, run.key("round-000/train")))
    svg = ElementTree.fromstring(lineage_svg(lineage))
    (broken,) = [group for group in svg.iter(f"{SVG}g") if "broken" in group.attrib["class"]]
    assert f"{run.made['round-000/score'].recipe[:12]} missing" in [said for said, *_ in texts(broken)]


@pytest.mark.parametrize(
    ("name", "told"), [("l.png", "is written as .svg or .html"), ("none/l.svg", "cannot be written")]
)
def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path, name: str, told: str):
    with pytest.raises(UserError, match=told):
        write_picture(random_lineage(0), tmp_path / name)


def test_the_text_follows_every_object_once_and_each_model_in_a_tree_of_its_own(tmp_path: Path):
    run = small_run(str(tmp_path / "store"), tmp_path / "made", rounds=2)
    storage.remove(run.store, f"objects/{run.key('start/prompts')}")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(lineage_text(trace(Address(run.store, run.key("round-001/train")))))
    short = {name: made.recipe[:12] for name, made in run.made.items()}
    assert [line.rstrip() for line in console.export_text().splitlines()] == [
        f"policy {short['round-001/train']}  small/round-001/train",
        f"├── policy {short['round-000/train']}  small/round-000/train, see below",
        f"├── policy {short['start/policy']}  small/start/policy",
        f"└── pairs {short['round-001/select']}  small/round-001/select",
        f"    └── groups {short['round-001/score']}  small/round-001/score",
        f"        ├── completions {short['round-001/generate']}  small/round-001/generate",
        f"        │   ├── policy {short['round-000/train']}  small/round-000/train, see below",
        f"        │   └── prompts {short['start/prompts']} missing  small/start/prompts",
        f"        └── reward_model {short['start/reward-model']}  small/start/reward-model, see below",
        f"policy {short['round-000/train']}  small/round-000/train",
        f"├── policy {short['start/policy']}  small/start/policy",
        f"└── pairs {short['round-000/select']}  small/round-000/select",
        f"    └── groups {short['round-000/score']}  small/round-000/score",
        f"        ├── completions {short['round-000/generate']}  small/round-000/generate",
        f"        │   ├── policy {short['start/policy']}  small/start/policy",
        f"        │   └── prompts {short['start/prompts']} missing  small/start/prompts",
        f"        └── reward_model {short['start/reward-model']}  small/start/reward-model, see below",
        f"reward_model {short['start/reward-model']}  small/start/reward-model",
        f"└── policy {short['start/policy']}  small/start/policy",
    ]
