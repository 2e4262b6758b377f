"""Reads a page written in Markdown: headings, code, tables, links, figures."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$"
    r"|^(?P<level>#+) (?P<title>[^\n]+)$"
    r"|(?P<table>(?:^\|[^\n]*\n)+)"
    r"|!\[(?P<alt>[^]]*)\]\((?P<figure>[^()\s]+)\)",
    flags=re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[([^]]*)\]\(((?:[^()\s]|\([^()\s]*\))+)\)")
NUMBER = re.compile(r"(?<![A-Za-z_.\d])\d+(?:[.,:]\d+)*")  # not the 4 of conv4_3


class Heading(NamedTuple):
    level: int
    title: str


class Code(NamedTuple):
    language: str
    text: str  # without the fences and their indentation


class Figure(NamedTuple):
    path: str
    text: str  # shown where the figure cannot be


class Page:
    """A Markdown file: lists of what is in it, in order."""

    def __init__(self, text):
        """:param text: the whole file"""
        self.text = text
        self.blocks = [_read_block(found) for found in BLOCK.finditer(text)]
        self.headings = self._blocks_of(Heading)
        self.codes = self._blocks_of(Code)
        self.figures = self._blocks_of(Figure)
        self.tables = self._blocks_of(list)
        self.without_code = BLOCK.sub(lambda found: found[0] if found["code"] is None else "", text)
        if "```" in self.without_code:
            raise ValueError("a block of code is never closed")

    def _blocks_of(self, kind):
        return [block for block in self.blocks if isinstance(block, kind)]

    @property
    def spans(self):
        """Code inside of sentences and tables, each once."""
        joined = " ".join(self.without_code.split())
        return list(dict.fromkeys(re.findall(r"`([^`]+)`", joined)))

    @property
    def links(self):
        """The addresses of all links and figures, also of those that stand below the text."""
        text = re.sub(r"`[^`\n]+`", "code", self.without_code)
        below = re.findall(r"^\[[^]]+\]: (\S+)$", text, flags=re.MULTILINE)
        return [address for _, address in LINK.findall(text)] + below

    @property
    def anchors(self):
        """The names by which GitHub lets one link to the headings, in order."""
        anchors = []
        counts = {}
        for heading in self.headings:
            title = LINK.sub(r"\1", heading.title).lower()
            anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            number = counts.get(anchor, 0)
            counts[anchor] = number + 1
            anchors.append(f"{anchor}-{number}" if number else anchor)
        return anchors

    @property
    def outline(self):
        """What a translation has in common with its page, in order."""
        return [_without_words(block) for block in self.blocks]


def read_page(name):
    """A page of the repository by its file name."""
    return Page((ROOT / name).read_text(encoding="utf-8"))


def numbers(cell):
    """The numbers in a cell of a table, as they are written."""
    return NUMBER.findall(cell)


def _read_block(found):
    """What was found as a Heading, a Code, a Figure, or a table: a list of rows of cells."""
    if found["title"]:
        return Heading(len(found["level"]), found["title"])
    if found["figure"]:
        return Figure(found["figure"], found["alt"])
    if found["table"]:
        header, _, *rows = found["table"].splitlines()
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in [header, *rows]]
    lines = found["code"].splitlines(keepends=True)
    return Code(found["language"], "".join(line.removeprefix(found["indent"]) for line in lines))


def _without_words(block):
    """A block without what is translated. Numbers may change places, as words do."""
    if isinstance(block, Heading):
        return "heading", block.level
    if isinstance(block, Figure):
        return "figure", block.path
    if isinstance(block, Code) and block.language == "bash":
        lines = block.text.splitlines()
        return "code", [line for line in lines if not line.startswith("#")]  # comments have words
    if isinstance(block, Code):
        return "code", block
    return "table", [[sorted(numbers(cell)) for cell in row] for row in block]
