"""Draws docs/images/rooms.svg, the rooms of the package and what they import, from the imports themselves.

    python docs/scripts/architecture.py

A room is a module or folder of `subsettune/`. The floors are those that a test of the project allows; a line is drawn
from a room to each one on the nearest floor below that it uses. All of them use the two lowest floors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from doc_pages import PAGES, ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

import arrows
from layers import LAYERS

PICTURE = PAGES / "images" / "rooms.svg"
WIDTH, FLOOR, BOX, GAP = 860, 74, 34, 10
GROUND = 2  # lowest floors, which everyone uses: lines to them would tell nothing
IN_A_ROW = 7
INK, LINE, FILL = "#24292f", "#8a8f98", "#e6f4ee"


def main() -> None:
    """Write the picture."""
    PICTURE.write_text("\n".join(lines()) + "\n", encoding="utf-8")


def uses() -> Mapping[str, frozenset[str]]:
    """Each room with the rooms that its modules import."""
    found: dict[str, set[str]] = {}
    for one in arrows.imports_of(ROOT / "subsettune"):
        if one.target.split(".")[0] == "subsettune":
            found.setdefault(arrows.room(one.source), set()).add(arrows.room(one.target))
    return {source: frozenset(targets - {source}) for source, targets in found.items()}


def floors() -> tuple[tuple[str, ...], ...]:
    """Rooms floor by floor, the top one first; `__init__` of the package is none."""
    return tuple(tuple(room for room in layer.rooms if room) for layer in reversed(LAYERS))


def lines() -> Iterator[str]:
    """The picture, from the back to the front."""
    all_floors, known = floors(), uses()
    rows = [rooms[i : i + IN_A_ROW] for rooms in all_floors for i in range(0, len(rooms), IN_A_ROW)]
    places = {room: place for i, rooms in enumerate(rows) for room, place in _row(i, rooms)}
    height = FLOOR * len(rows)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-size="13"'
    yield ' font-family="system-ui, sans-serif">'
    yield "<title>Rooms of the package; each uses only those below it</title>"
    yield f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>'
    for room in (room for rooms in all_floors[:-GROUND] for room in rooms):
        for target in _nearest(room, known.get(room, frozenset()), all_floors[:-GROUND]):
            yield _line(places[room], places[target])
    for room, (x, y, width) in places.items():
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX}" rx="5" fill="{FILL}" stroke="{LINE}"/>'
        yield f'<text x="{x + width / 2:.1f}" y="{y + 22:.1f}" fill="{INK}" text-anchor="middle">{escape(room)}</text>'
    yield "</svg>"


def _nearest(room: str, targets: frozenset[str], all_floors: Sequence[Sequence[str]]) -> list[str]:
    """Of the rooms that one uses, those on the highest floor below its own."""
    own = next(i for i, rooms in enumerate(all_floors) if room in rooms)
    below = ([target for target in rooms if target in targets] for rooms in all_floors[own + 1 :])
    return next((found for found in below if found), [])


def _row(number: int, rooms: Sequence[str]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Left edge, top edge and width of each box of a row."""
    widths = [9.0 * max(len(room), 4) + 14 for room in rooms]
    x = (WIDTH - sum(widths) - GAP * (len(rooms) - 1)) / 2
    for room, width in zip(rooms, widths, strict=True):
        yield room, (x, number * FLOOR + (FLOOR - BOX) / 2, width)
        x += width + GAP


def _line(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1, x2, y2 = start[0] + start[2] / 2, start[1] + BOX, end[0] + end[2] / 2, end[1]
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{LINE}" fill="none"/>'


if __name__ == "__main__":
    main()
