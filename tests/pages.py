"""Reads a page written in Markdown, as far as the tests of the README need it: sections, code, tables, figures, links, prose."""

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Code(NamedTuple):
    """A fenced block."""

    language: str
    text: str  # without the fences and their indentation


class Link(NamedTuple):
    """A link, or a figure if its text is an alternative text."""

    text: str
    target: str


class Section:
    """A heading and what stands below it, up to the next heading of any level."""

    def __init__(self, level, title):
        self.level, self.title = level, title
        self.codes, self.tables, self.lines = (
            [],
            [],
            [],
        )  # tables: rows of cells, without the line of dashes

    @cached_property
    def text(self):
        """What is neither code nor table, as it is written, its lines joined."""
        return " ".join(" ".join(self.lines).split())

    @cached_property
    def spans(self):
        """Code spans, those in tables included."""
        cells = " ".join(cell for table in self.tables for row in table for cell in row)
        return re.findall(r"`([^`]+)`", f"{self.text} {cells}")

    @cached_property
    def formulas(self):
        """Formulas inside sentences; those that stand alone are code blocks of the language `math`."""
        return re.findall(r"\$([^$]+)\$", re.sub(r"`[^`]+`", "", self.text))

    @cached_property
    def prose(self):
        """
        What a reader reads as sentences: no code spans, no formulas, no addresses, and no texts of links that leave the
        repository, as these are names and titles.
        """
        text = re.sub(r"`[^`]+`", " ", self.text)
        text = re.sub(r"\$[^$]+\$", " ", text)
        text = re.sub(
            r"\[[^]]*\](\(https?:(?:[^()\s]|\([^()\s]*\))+\)|\[[^]]+\]|: https?:\S+)", " ", text
        )
        text = re.sub(r"\]\((?:[^()\s]|\([^()\s]*\))+\)", " ", text)
        return " ".join(re.sub(r"[]*\[|>!]", " ", text).split())


class Page:
    """A Markdown file."""

    def __init__(self, text):
        self.text = text
        self.sections = []
        section, fence, code = Section(0, ""), None, []
        for line in text.splitlines():
            heading = re.fullmatch(r"(#+) (.+)", line)
            mark = re.fullmatch(r"( *)```(\w*)", line)
            if fence is not None:
                if line == fence[1] + "```":
                    section.codes.append(Code(fence[2], "".join(code)))
                    fence, code = None, []
                else:
                    code.append(line.removeprefix(fence[1]) + "\n")
            elif mark:
                fence = mark
            elif heading:
                self.sections.append(section)
                section = Section(len(heading[1]), heading[2])
            else:
                self._add_line(section, line)
        self.sections.append(section)
        if fence is not None:
            raise ValueError(f"a code block in the section {section.title!r} is never closed")

    @staticmethod
    def _add_line(section, line):
        if not line.startswith("|"):
            section.lines.append(line)
            return
        if not section.lines or section.lines[-1] != "|":  # a new table begins
            section.lines.append("|")
            section.tables.append([])
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not all(re.fullmatch(":?-+:?", cell) for cell in cells):
            section.tables[-1].append(cells)

    @cached_property
    def plain(self):
        """All text but code, tables included, with single spaces and without the marks of bold and italic type."""
        text = re.sub(r"^( *)```.*?^\1```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return " ".join(re.sub(r"\*+", "", text).split())

    @cached_property
    def codes(self):
        return [code for section in self.sections for code in section.codes]

    @cached_property
    def spans(self):
        return [span for section in self.sections for span in section.spans]

    @cached_property
    def anchors(self):
        """The names by which GitHub lets one link to the headings, in order."""
        anchors = []
        for section in self.sections[1:]:
            title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", section.title)
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            n_before = sum(
                re.fullmatch(re.escape(anchor) + r"(-\d+)?", other) is not None for other in anchors
            )
            anchors.append(f"{anchor}-{n_before}" if n_before else anchor)
        return anchors

    @cached_property
    def without_code(self):
        """The text without code blocks, and with one word in place of each code span."""
        text = re.sub(r"^( *)```.*?^\1```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return re.sub(r"`[^`\n]+`", "code", text)

    @cached_property
    def links(self):
        """Links with their address beside them, and figures."""
        pattern = r"\[([^]]*)\]\(((?:[^()\s]|\([^()\s]*\))+)\)"
        return [Link(*found) for found in re.findall(pattern, self.without_code)]

    @cached_property
    def figures(self):
        pattern = r"!\[([^]]*)\]\(((?:[^()\s]|\([^()\s]*\))+)\)"
        return [Link(*found) for found in re.findall(pattern, self.without_code)]

    @cached_property
    def references(self):
        """Texts and names of links whose addresses stand elsewhere."""
        return [
            Link(text, name or text)
            for text, name in re.findall(r"\[([^]]+)\]\[([^]]*)\]", self.without_code)
        ]

    @cached_property
    def definitions(self):
        """The addresses that stand elsewhere: {name: address}."""
        return dict(re.findall(r"^\[([^]]+)\]: (\S+)$", self.without_code, flags=re.MULTILINE))

    def table(self, *header):
        """The rows of the only table whose header begins with these cells, without the header."""
        tables = [table for section in self.sections for table in section.tables]
        (found,) = [table for table in tables if tuple(table[0][: len(header)]) == header]
        return found[1:]


def read_page(name):
    """A page of the repository by its file name."""
    return Page((ROOT / name).read_text(encoding="utf-8"))
