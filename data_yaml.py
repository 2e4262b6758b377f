"""
YOLO's data.yaml: the names of classes, and the folders of images. Only the forms of YAML in which
such files are written are understood, so that reading them takes no other library.
"""

import re

from annotations import MAX_NAMES_BYTES, AnnotationError, check_different, read_lines, shown

KEYS = ("names", "nc", "train", "val", "test", "path")
YAML_REMEDY = (
    "write names: [first, second, ...], or leave `names` out and write classes.txt, with a name on "
    "each line"
)
# An item in brackets, up to its comma: in single quotes, in double quotes (after the number that a
# mapping has), or plain
ITEM = re.compile(
    r"""(\s*(?:\d+\s*:\s*)?'(?:[^']|'')*'\s*|\s*(?:\d+\s*:\s*)?"[^"]*"\s*|[^,'"\[\]{}]*)(?:,|$)"""
)


def read_data_yaml(path):
    """
    Read what a YOLO data set's data.yaml says about its classes and folders. Of YAML, only the
    forms are understood in which such files are written: `key: value`, lists and mappings in
    brackets or on lines of their own, quotes and comments. Other keys are not looked at.

    :return: {"names": {number: class name}, "train": [folder, ...], "val" and "test" likewise,
        "path": folder}, each only if it is there
    :raises AnnotationError: a value has another form, or the names contradict `nc`
    """
    blocks = yaml_blocks(path)
    if "kpt_shape" in blocks:
        raise AnnotationError(f"{path}: it is about key points, not boxes (kpt_shape)")
    values = {}
    for key in KEYS:
        try:
            value = yaml_value(blocks.get(key, []))
        except ValueError as error:
            remedy = YAML_REMEDY if key == "names" else "write it as one line, `key: value`"
            raise AnnotationError(f"{path}: `{key}`: {error}: {remedy}") from error
        if value:
            values[key] = value
    for key in {"train", "val", "test"} & values.keys():
        values[key] = as_list(values[key], key, path)
    check_yaml_names(values, path)
    values.pop("nc", None)
    return values


def as_list(value, key, path):
    """One folder or several, as a list."""
    if isinstance(value, dict):
        raise AnnotationError(f"{path}: `{key}`: expected a folder, or a list of folders")
    return value if isinstance(value, list) else [value]


def check_yaml_names(values, path):
    """Make the names of a data.yaml {number: class name}, in place, and check them."""
    if "names" not in values:
        return
    names = values["names"]
    if isinstance(names, str):
        raise AnnotationError(f"{path}: `names`: expected several names: {YAML_REMEDY}")
    values["names"] = names = names if isinstance(names, dict) else dict(enumerate(names))
    if "nc" in values and values["nc"] != str(len(names)):
        raise AnnotationError(
            f"{path}: it has {len(names)} names, but nc is {shown(values['nc'])}: correct it"
        )
    check_different(names.values(), path)


def yaml_blocks(path):
    """The lines of each key of a data.yaml, without comments: {key: [line]}."""
    blocks = {}
    lines = []
    for line in read_lines(path, MAX_NAMES_BYTES):
        line = without_comment(line).rstrip()
        found = re.match(r"([\w-]+):(?: +(.*))?$", line)
        if found:
            lines = blocks.setdefault(found[1], [])
            line = found[2] or ""
        if line.strip():
            lines.append(line.strip())
    return blocks


def without_comment(line):
    """A line of YAML up to its comment; within quotes, # is no comment."""
    for found in re.finditer(r"(?:^|\s)#", line):
        before = line[: found.start()]
        if before.count("'") % 2 == 0 and before.count('"') % 2 == 0:
            return before
    return line


def yaml_value(lines):
    """
    The value that some lines of YAML have.

    :return: a text, a list of texts, {number: text}, or "" if there is none
    :raises ValueError: a form that is not understood
    """
    text = " ".join(lines)
    if text[:1] + text[-1:] == "[]":
        return [yaml_scalar(item) for item in split_items(text[1:-1])]
    if text[:1] + text[-1:] == "{}":
        return yaml_mapping(split_items(text[1:-1]))
    if lines and all(line.startswith("- ") for line in lines):
        return [yaml_scalar(line[2:]) for line in lines]
    if lines and all(re.match(r"\d+:", line) for line in lines):
        return yaml_mapping(lines)
    return yaml_scalar(text) if text else ""


def split_items(text):
    """What stands between the commas of a text; a comma may be within quotes."""
    items = []
    place = 0
    while place < len(text):
        found = ITEM.match(text, place)
        if not found:
            raise ValueError(f"not understood at {text[place : place + 40]!a}")
        items.append(found[1])
        place = found.end()
    return items if items and items[-1].strip() else items[:-1]  # a comma may end the list


def yaml_mapping(items):
    """{number: text} of items of the form `number: text`."""
    values = {}
    for item in items:
        number, _, text = item.partition(":")
        if not re.fullmatch(r"\s*\d{1,6}\s*", number) or int(number) in values:
            raise ValueError(f"not understood at {item[:40]!a}")
        values[int(number)] = yaml_scalar(text)
    return dict(sorted(values.items()))


def yaml_scalar(text):
    """A text of YAML without its quotes."""
    text = text.strip()
    if re.fullmatch(r"'([^']|'')+'", text):
        value = text[1:-1].replace("''", "'")
    elif re.fullmatch(r'"[^"\\]+"', text):  # with a backslash, other rules would apply
        value = text[1:-1]
    elif re.match(r"[^\[\]{}&*!|>%@`'\"]", text) and not re.search(r":(\s|$)", text):
        value = text
    else:
        raise ValueError(f"not understood at {text[:40]!a}")
    if not value.strip():
        raise ValueError("a value is empty")
    return value.strip()
