"""A page as a browser's parser sees it, strict where a browser forgives."""

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Tags in order, ``data`` elements with their text, ids, and all text; unbalanced tags raise AssertionError."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[float, str]] = []
        self.text: list[str] = []
        self.plot_texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        if tag == "data":
            self.data.append((float(dict(attrs)["value"] or "nan"), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], data)
        if self.open and self.open[-1] == "text":
            self.plot_texts.append(data.strip())

    @property
    def ids(self) -> list[str]:
        return [i for _, attrs in self.tags if (i := attrs.get("id"))]

    @property
    def body(self) -> str:
        return " ".join(" ".join(self.text).split())
