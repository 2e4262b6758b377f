"""README.md and README.ko.md are in step: the same parts, figures, code, formulas and numbers, in English and in Korean."""

import re

import pytest

from pages import Page, read_page

PAIRS = [
    ("README.md", "README.ko.md", "[가-힣]")
]  # the page, its translation, and the letters of the latter's script
NUMBER = r"(?<![A-Za-z_.\d])\d+(?:[.,:]\d+)*"


def differences(page, translation, letters):
    """
    What a translation has that its page has not, or the other way round.

    Compared are the headings' levels, and under each heading how many paragraphs and items of lists there are, the figures, the
    code blocks (comments included), the formulas, code spans and links, the rows, columns and numbers of tables, and the numbers
    in sentences. Formulas, code spans, links and the numbers in sentences may come in another order, as words do. The translation
    may write as a numeral what the page writes in words, but not leave out a number.

    Prose has to be translated: under each heading more than half of its letters are the translation's. It does not count what is
    not to be translated: code, formulas, addresses, and the texts of links that leave the repository, which are names and titles.
    Tables do not count either, as most cells are names and numbers, but a cell of four or more words has to be translated.
    """
    found = []
    levels, other_levels = (
        [section.level for section in either.sections] for either in (page, translation)
    )
    if levels != other_levels:
        return [f"headings: of the levels {levels}, in the translation {other_levels}"]
    for section, other in zip(
        page.sections[1:], translation.sections[1:], strict=True
    ):  # not what is above the title
        pairs = {
            "paragraphs": (n_paragraphs(section), n_paragraphs(other)),
            "items": (n_items(section), n_items(other)),
            "figures": (figures(section), figures(other)),
            "links": (links(section, page), links(other, translation)),
            "code": (section.codes, other.codes),
            "formulas": (sorted(set(section.formulas)), sorted(set(other.formulas))),
            "code spans": (sorted(set(section.spans)), sorted(set(other.spans))),
            "tables": (numbers_of_tables(section), numbers_of_tables(other)),
            "numbers missing": ([], sorted(numbers(section.prose) - numbers(other.prose))),
        }
        found += [
            f"{section.title}: {what}: {ours}, in the translation {theirs}"
            for what, (ours, theirs) in pairs.items()
            if ours != theirs
        ]
        share = share_of_letters(other.prose, letters)
        if share <= 0.5:
            found.append(f"{section.title}: {share:.0%} of the letters are the translation's")
        found += [
            f"{section.title}: not translated: {cell}"
            for cell in untranslated_cells(section, other, letters)
        ]
    return found


def figures(section):
    return re.findall(r"!\[[^]]*\]\((\S+?)\)", section.text)


def n_paragraphs(section):
    """Paragraphs, lists, figures, formulas and tables: what stands between empty lines."""
    return len(re.split(r"\n\s*\n", "\n".join(section.lines).strip()))


def n_items(section):
    return sum(re.match(r" *(?:-|\d+\.) ", line) is not None for line in section.lines)


def links(section, page):
    """Addresses, sorted; for a link within the page the number of the heading that it leads to, as the titles are translated."""
    targets = re.findall(r"\]\(((?:[^()\s]|\([^()\s]*\))+)\)", section.text)
    return sorted(
        f"#{page.anchors.index(target[1:]):03}" if target[1:] in page.anchors else target
        for target in targets
    )


def numbers(text):
    """The numbers in a text, a set; not parts of names, such as VGG-16, nor millions, which other languages count otherwise."""
    return set(re.findall(NUMBER, re.sub(r"\w+-\d+|[\d.]+ million", "", text)))


def numbers_of_tables(section):
    """For each table and row the numbers of each cell, sorted."""
    return [
        [[sorted(re.findall(NUMBER, cell)) for cell in row] for row in table]
        for table in section.tables
    ]


def share_of_letters(prose, letters):
    """What part of a text's letters are of a kind; 1 if it has none."""
    n_letters = len(re.findall(r"[^\W\d_]", prose))
    return len(re.findall(letters, prose)) / n_letters if n_letters else 1.0


def untranslated_cells(section, other, letters):
    """Cells of four words or more that are not, or hardly, in the translation's letters."""
    pairs = [
        (cell, other_cell)
        for table, other_table in zip(section.tables, other.tables, strict=False)
        for row, other_row in zip(table, other_table, strict=False)
        for cell, other_cell in zip(row, other_row, strict=False)
    ]
    plain = [
        (re.sub(r"`[^`]+`|\[[^]]*\]\([^)]*\)", "", cell), other_cell) for cell, other_cell in pairs
    ]
    return [
        other
        for cell, other in plain
        if len(re.findall(r"[A-Za-z]{2,}", cell)) >= 4 and not re.search(letters, other)
    ]


@pytest.mark.parametrize(("name", "translated_name", "letters"), PAIRS)
def test_translations_are_in_step(name, translated_name, letters):
    assert differences(read_page(name), read_page(translated_name), letters) == []


@pytest.mark.parametrize(("name", "translated_name", "letters"), PAIRS)
def test_pages_name_each_other_at_their_beginning(name, translated_name, letters):
    for page, other in ((name, translated_name), (translated_name, name)):
        assert other in [link.target for link in read_page(page).links][:2]


@pytest.mark.parametrize(("name", "translated_name", "letters"), PAIRS)
def test_formulas_and_bold_type_are_shown_as_such(name, translated_name, letters):
    """
    GitHub takes a dollar for a dollar where a letter touches it from outside, and asterisks for asterisks where they follow
    punctuation and a letter follows them: both happen easily where particles are written without a space.
    """
    for section in read_page(translated_name).sections:
        text = f" {re.sub('`[^`]+`', '`x`', section.text)} "
        formulas = [
            text[found.start() - 1 : found.end() + 1] for found in re.finditer(r"\$[^$]+\$", text)
        ]
        assert [
            formula
            for formula in formulas
            if re.match(r"\w", formula) or re.search(r"\w$", formula)
        ] == []
        bold = [
            text[found.start() - 1 : found.end() + 1]
            for found in re.finditer(r"\*\*[^*]+\*\*", text)
        ]
        assert [
            words
            for words in bold
            if re.search(r"[^\w\s]\*\*\w$", words) or re.match(r"\w\*\*[^\w\s]", words)
        ] == []


# What the comparison finds: a page and its translation, and translations that differ in one thing
PAGE = """[한국어](ko.md)

# A title with `code`

The *priors* are 8732 boxes, see `SSD300` and $w^2$, ten times [better](https://example.org/a_name).

![A figure of boxes](img/a.png)

## A part

| map | what there is to say about it | 38 x 38 |
|---|---|---|
| `conv7` | it has many more tiles | 0.5 |

```python
print(1)  # one
```

It has 3 x 3 tiles, and 16,551 images of VGG-16.
"""
TRANSLATION = """[English](en.md)

# `code`가 있는 제목

*사전 박스*는 `SSD300` 에서 보듯이 8732개이고, $w^2$ 이며, 10배 [better](https://example.org/a_name) 합니다.

![박스 그림](img/a.png)

## 한 부분

| 맵 | 할 말 | 38 x 38 |
|---|---|---|
| `conv7` | 타일이 훨씬 많습니다 | 0.5 |

```python
print(1)  # one
```

타일은 3 x 3개, 이미지는 16,551장이고 베이스는 VGG-16 입니다.
"""


def test_a_translation_in_step_has_no_differences():
    assert differences(Page(PAGE), Page(TRANSLATION), PAIRS[0][2]) == []


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        ("## 한 부분", "### 한 부분", "headings"),
        ("## 한 부분", "한 부분", "headings"),
        ("img/a.png", "img/b.png", "figures"),
        ("![박스 그림](img/a.png)", "", "figures"),
        ("# one", "# 하나", "code:"),
        ("개이고, $w^2$", "개이고,\n\n $w^2$", "paragraphs"),
        ("16,551장이고", "16,551장이고\n- ", "items"),
        ("https://example.org/a_name", "https://example.org/b", "links"),
        ("$w^2$", "$w^3$", "formulas"),
        ("`SSD300`", "`SSD512`", "code spans"),
        ("0.5 |", "0.6 |", "tables"),
        ("| 0.5 |", "|", "tables"),
        ("| `conv7` | 타일이 훨씬 많습니다 | 0.5 |\n", "", "tables"),
        ("8732개", "8372개", "numbers missing"),
        ("16,551장", "많은", "numbers missing"),
        (
            "타일은 3 x 3개, 이미지는",
            "It has 3 x 3 tiles, and there are very many images,",
            "of the letters",
        ),
        ("타일이 훨씬 많습니다", "it has many more tiles", "not translated"),
    ],
)
def test_a_translation_out_of_step_is_found(part, wrong, message):
    assert part in TRANSLATION
    found = differences(Page(PAGE), Page(TRANSLATION.replace(part, wrong)), PAIRS[0][2])
    assert any(message in difference for difference in found)
