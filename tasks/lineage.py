"""Where an artifact comes from, as a person reads it: in the terminal, or as a picture in a file."""

from collections import deque
from pathlib import Path

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from alignment.errors import UserError
from infra.lineage import Lineage, Node, find_address, trace
from tasks.lineage_picture import MODELS, lineage_svg
from tasks.pages import render
from tasks.text_files import write_text

NAMES = 3
"""Of those that point to an object, as many are told in its line."""


def read_lineage(said: str, store: str, run: str | None) -> Lineage:
    """What a person means by an artifact, followed back. UserError where that is none, or several."""
    return trace(find_address(said, store, run))


def lineage_text(lineage: Lineage) -> RenderableType:
    """One tree from the artifact down to its models, and one for each model that was made from something itself; each
    object is followed once, and named wherever it is used."""
    nodes = {node.key: node for node in lineage.nodes}
    told: set[str] = set()
    trees: list[RenderableType] = []
    roots = deque([lineage.artifact])
    while roots:
        if (root := roots.popleft()) not in told:
            trees.append(_tree(root, nodes, told, roots))
    return Group(*trees)


def _tree(root: str, nodes: dict[str, Node], told: set[str], roots: deque[str]) -> Tree:
    tree = Tree(_line(nodes[root]))
    told.add(root)
    waiting = [(tree, key) for key in reversed(nodes[root].parents)]
    while waiting:
        branch, key = waiting.pop()
        node, line, follow = nodes[key], _line(nodes[key]), ()
        if node.parents and key in told:
            line.append(", as above", "dim")
        elif node.parents and node.kind in MODELS:
            line.append(", see below", "dim")
            roots.append(key)
        else:
            told.add(key)
            follow = node.parents
        inner = branch.add(line)
        waiting += [(inner, parent) for parent in reversed(follow)]
    return tree


def _line(node: Node) -> Text:
    style = "bold green" if node.kind in MODELS else "bold"
    line = Text.assemble((node.kind, style), " ", (node.short, "dim"))
    if node.state != "there":
        line.append(f" {node.state}", "bold red")
    shown = node.names if len(node.names) <= NAMES else node.names[: NAMES - 1]
    more = f" and {len(node.names) - len(shown)} more names" if len(node.names) > len(shown) else ""
    return line.append(f"  {'  '.join(shown)}{more}" if shown else "")


def write_picture(lineage: Lineage, path: Path) -> None:
    """Draw it into a .svg or an .html file. UserError for any other."""
    match path.suffix:
        case ".svg":
            text = lineage_svg(lineage)
        case ".html":
            root = lineage.nodes[0]
            text = render(
                "lineage.html.j2", {}, title=f"{root.kind} {root.short}", picture=Markup(lineage_svg(lineage))
            )
        case _:
            raise UserError(f"{path}: a picture is written as .svg or .html; choose one of these endings")
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from error
