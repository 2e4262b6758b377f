"""Writes GIF files of which every detail is chosen, and says what a viewer shows."""

import struct

import numpy as np

PALETTE = np.array([(255, 0, 0), (0, 160, 0), (0, 0, 255), (90, 90, 90)], dtype=np.uint8)
TRANSPARENT = 3  # number of the colour that frames may declare transparent
KEEP, CLEAR, RESTORE = 1, 2, 3  # what becomes of a frame before the next one (GIF89a, disposal)


def gif_bytes(size, frames, loop=None):
    """
    :param size: (width, height) of the picture
    :param frames: list of (indices into the palette, an array (h, w); left; top; disposal; whether
        TRANSPARENT is; duration in hundredths of a second, or None for a frame that states nothing)
    :param loop: how often it is repeated, or None
    :return: the file
    """
    content = b"GIF89a" + struct.pack("<HHBBB", *size, 0b10000001, 0, 0) + PALETTE.tobytes()
    if loop is not None:
        content += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0)
    for indices, left, top, disposal, has_transparency, duration in frames:
        if duration is not None:
            flags = disposal << 2 | has_transparency
            content += b"!\xf9\x04" + struct.pack("<BHBB", flags, duration, TRANSPARENT, 0)
        height, width = indices.shape
        content += b"," + struct.pack("<HHHHB", left, top, width, height, 0) + encode(indices)
    return content + b";"


def encode(indices):
    """Pixels as LZW codes of three bits: the table is cleared before it would need longer ones."""
    clear, end = 4, 5
    bits = ""
    for number, index in enumerate(indices.flatten().tolist()):
        if number % 2 == 0:
            bits = f"{clear:03b}" + bits
        bits = f"{index:03b}" + bits
    bits = f"{end:03b}" + bits
    data = int(bits, 2).to_bytes(len(bits) // 8 + 1, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"


def shown_frames(size, frames, background=-1):
    """
    What a viewer shows in front of something white.

    :param background: index of the colour that takes the place of a frame that is cleared; -1: none
    :return: list of arrays (height, width, 3)
    """
    canvas = np.full((size[1], size[0]), -1)  # nothing yet
    shown = []
    for indices, left, top, disposal, has_transparency, _ in frames:
        before = canvas.copy()
        height, width = indices.shape
        part = canvas[top : top + height, left : left + width]
        visible = indices[: part.shape[0], : part.shape[1]]  # a frame may stick out
        covers = visible != TRANSPARENT if has_transparency else np.full(visible.shape, True)
        part[covers] = visible[covers]
        shown.append(np.where(canvas[..., None] < 0, 255, PALETTE[canvas]))
        if disposal == CLEAR:
            part[:] = background
        if disposal == RESTORE:
            canvas = before
    return shown
